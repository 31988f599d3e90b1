//! The five hash functions that `States.Hash` and `$hash` offer, as lower-case hexadecimal text.
//! MD5 and SHA-1 are here because the language names them, for fingerprints and not for security.

use md5::Md5;
use sha1::Sha1;
use sha2::digest::Digest;
use sha2::{Sha256, Sha384, Sha512};

/// The algorithms, as they are written in a definition.
pub(crate) const ALGORITHMS: &str = "MD5, SHA-1, SHA-256, SHA-384, SHA-512";

/// The digest of the text's UTF-8 bytes, or `None` for an algorithm that does not exist.
pub(crate) fn hexadecimal(text: &str, algorithm: &str) -> Option<String> {
    Some(match algorithm {
        "MD5" => digest::<Md5>(text),
        "SHA-1" => digest::<Sha1>(text),
        "SHA-256" => digest::<Sha256>(text),
        "SHA-384" => digest::<Sha384>(text),
        "SHA-512" => digest::<Sha512>(text),
        _ => return None,
    })
}

fn digest<D: Digest>(text: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut hexadecimal = String::new();
    for byte in D::digest(text.as_bytes()) {
        hexadecimal.push(char::from(DIGITS[usize::from(byte >> 4)]));
        hexadecimal.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    hexadecimal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_the_published_ones() {
        for (algorithm, expected) in [
            ("MD5", "900150983cd24fb0d6963f7d28e17f72"),
            ("SHA-1", "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (
                "SHA-256",
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
        ] {
            assert_eq!(
                hexadecimal("abc", algorithm).as_deref(),
                Some(expected),
                "{algorithm}"
            );
        }
        assert_eq!(
            hexadecimal("abc", "SHA-384").map(|digest| digest.len()),
            Some(96)
        );
        assert_eq!(
            hexadecimal("abc", "SHA-512").map(|digest| digest.len()),
            Some(128)
        );
        assert_eq!(hexadecimal("abc", "sha-256"), None);
    }
}
