//! Definitions that use every field of the language compile: all of their expressions and paths parse.

#![allow(clippy::unwrap_used, reason = "a test may stop")]

use std::{fs, path::Path};

#[test]
fn every_document_of_the_corpus_compiles() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contracts/tests/corpus");
    let mut count = 0;
    for file in fs::read_dir(corpus).unwrap() {
        let path = file.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        if let Err(report) = dirigent_coordinator::compile(&path.to_string_lossy(), &text) {
            panic!("{}: {:#?}", path.display(), report.diagnostics());
        }
        count += 1;
    }
    assert!(count > 7, "only {count} were found");
}
