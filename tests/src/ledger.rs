//! A file of side effects, one line each, that outlives the process which writes it.
//!
//! A second doing of an effect is written down as such, never hidden: the test judges.

use std::{
    collections::BTreeMap,
    fmt::Display,
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// Appends side effects to a file.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: Mutex<File>,
}

/// One effect, as the ledger tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Key of its saga.
    pub key: String,
    /// The task that did it; empty if it was only undone.
    pub task: String,
    /// How often it was done.
    pub done: usize,
    /// How often it was undone.
    pub undone: usize,
}

impl Ledger {
    /// Opens a ledger, or begins one.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(path: PathBuf) -> std::io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        Ok(Self {
            path,
            file: Mutex::new(file),
        })
    }

    /// Notes an effect, unless it stands there already.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn note(
        &self,
        key: &impl Display,
        task: &impl Display,
        effect: &str,
        undo: bool,
    ) -> std::io::Result<()> {
        let word = if undo { "undo" } else { "do" };
        let line = format!("{word} {effect} {task} {key}\n");
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if fs::read_to_string(&self.path)?
            .lines()
            .any(|known| known == line.trim_end())
        {
            return Ok(());
        }
        file.write_all(line.as_bytes())
    }

    /// All effects, by effect id.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn accounts(path: &Path) -> std::io::Result<BTreeMap<String, Account>> {
        let mut accounts: BTreeMap<String, Account> = BTreeMap::new();
        for line in fs::read_to_string(path)?.lines() {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            let [word, effect, task, key] = words[..] else {
                continue;
            };
            let account = accounts.entry(effect.to_owned()).or_default();
            key.clone_into(&mut account.key);
            if word == "do" {
                task.clone_into(&mut account.task);
                account.done += 1;
            } else {
                account.undone += 1;
            }
        }
        Ok(accounts)
    }
}
