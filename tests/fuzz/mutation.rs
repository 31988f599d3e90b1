//! Inputs that are nearly right: what is known to be right, changed a little in the ways in which parsers go
//! wrong.

use fastrand::Rng;

/// Longest input.
const MOST_BYTES: usize = 16_384;
/// Most changes of one input.
const MOST_CHANGES: usize = 6;

/// Pieces with a meaning in one of the formats.
const PIECES: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b"(",
    b")",
    b"\"",
    b"'",
    b"\\",
    b":",
    b",",
    b"&a ",
    b"*a",
    b"<<: ",
    b"\n  - ",
    b"{% ",
    b" %}",
    b"$",
    b"$$",
    b"..",
    b"[?(@.",
    b"/(a+)+$/",
    b"~>",
    b"function($x){$x}",
    b"$states.input",
    b"States.Format(",
    b"=2F",
    b"=",
    b"%C3",
    b".*.>",
    b"-1",
    b"1e999",
    b"NaN",
    b"18446744073709551616",
    b"9999999999999999999999",
    b"\\ud800",
    "é\u{202e}\u{feff}".as_bytes(),
    b"\0",
    b"\xff\xfe",
    // MessagePack: the longest of everything, extensions, a reserved byte.
    b"\xdf\xff\xff\xff\xff",
    b"\xdd\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xc9\x00\x00\x00\x01\x05",
    b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00",
    b"\xc1",
    b"\x91\x91\x91\x91\x91\x91\x91\x91",
];

/// An input that comes of one that is known, and perhaps of a second.
pub(super) fn mutate(random: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let one_of = |random: &mut Rng| random.choice(corpus).cloned().unwrap_or_default();
    let mut input = one_of(random);
    for _ in 0..random.usize(1..=MOST_CHANGES) {
        let at = random.usize(0..=input.len());
        let end = random.usize(at..=input.len().min(at + 64));
        match random.u8(0..8) {
            0 if at < input.len() => input[at] ^= 1 << random.u8(0..8),
            1 if at < input.len() => input[at] = random.u8(..),
            2 => drop(input.drain(at..end)),
            3 => {
                let repeated = input[at..end].repeat(random.usize(1..40));
                drop(input.splice(at..at, repeated));
            }
            4 => {
                let other = one_of(random);
                let from = random.usize(0..=other.len());
                let to = random.usize(from..=other.len());
                drop(input.splice(at..end, other[from..to].iter().copied()));
            }
            5 => input.truncate(at),
            _ => {
                let piece = random.choice(PIECES).copied().unwrap_or_default();
                drop(input.splice(at..at, piece.iter().copied()));
            }
        }
        input.truncate(MOST_BYTES);
    }
    input
}
