//! The side effects of all workers: a directory that outlives the processes which write it.
//!
//! It does what the database of a real service would: an effect is stored under its id once, however
//! many processes do it at the same time, and one that was undone before it was done stays undone. A
//! step that is done under two effect ids shows as two effects: the test judges.

use std::{
    collections::BTreeMap,
    fmt::Display,
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// Stores side effects.
#[derive(Debug)]
pub struct Ledger {
    directory: PathBuf,
    /// Makes the names of files that are being written unique within this process.
    drafts: AtomicU64,
}

/// One effect, as the ledger tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Key of its saga.
    pub key: String,
    /// The task that did it; empty if it was only undone.
    pub task: String,
    /// How often it was done: at most once.
    pub done: usize,
    /// How often it was undone: at most once.
    pub undone: usize,
}

impl Ledger {
    /// Opens a ledger, or begins one.
    ///
    /// # Errors
    /// If the directory cannot be made.
    pub fn open(directory: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&directory)?;
        Ok(Self {
            directory,
            drafts: AtomicU64::new(0),
        })
    }

    /// Does an effect, unless it is done. False if it was undone before.
    ///
    /// # Errors
    /// If the ledger cannot be written.
    pub fn perform(
        &self,
        key: &impl Display,
        task: &impl Display,
        effect: &str,
    ) -> io::Result<bool> {
        let line = format!("do {task} {key}");
        let stands = self.store(effect, &line)?;
        Ok(stands.starts_with("do "))
    }

    /// Undoes an effect, or keeps it from ever being done.
    ///
    /// # Errors
    /// If the ledger cannot be written.
    pub fn undo(&self, key: &impl Display, effect: &str) -> io::Result<()> {
        let stands = self.store(effect, &format!("never {key}"))?;
        if stands.starts_with("do ") {
            self.store(&format!("{effect}.undo"), &format!("undo {key}"))?;
        }
        Ok(())
    }

    /// Stores a line under a name, unless one stands there already. Gives the one that stands.
    fn store(&self, name: &str, line: &str) -> io::Result<String> {
        let number = self.drafts.fetch_add(1, Ordering::Relaxed);
        let draft = format!(".draft-{}-{number}", std::process::id());
        let (draft, entry) = (self.directory.join(draft), self.directory.join(name));
        fs::write(&draft, line)?;
        // A link appears whole or not at all, and never in the place of another.
        let linked = fs::hard_link(&draft, &entry);
        fs::remove_file(&draft)?;
        match linked {
            Ok(()) => Ok(line.to_owned()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => fs::read_to_string(entry),
            Err(error) => Err(error),
        }
    }

    /// All effects, by effect id.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub fn accounts(directory: &Path) -> io::Result<BTreeMap<String, Account>> {
        let mut accounts: BTreeMap<String, Account> = BTreeMap::new();
        for entry in fs::read_dir(directory)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') {
                continue;
            }
            let line = fs::read_to_string(directory.join(&name))?;
            let effect = name.strip_suffix(".undo").unwrap_or(&name);
            let account = accounts.entry(effect.to_owned()).or_default();
            let words: Vec<&str> = line.splitn(3, ' ').collect();
            match words[..] {
                ["do", task, key] => {
                    (account.key, account.task) = (key.to_owned(), task.to_owned());
                    account.done += 1;
                }
                ["never" | "undo", key] => {
                    key.clone_into(&mut account.key);
                    account.undone += 1;
                }
                _ => return Err(io::Error::new(ErrorKind::InvalidData, line)),
            }
        }
        Ok(accounts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_effect_is_done_once_undone_once_and_never_after_its_undo() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        let (one, two) = (
            Ledger::open(path.clone()).unwrap(),
            Ledger::open(path.clone()).unwrap(),
        );
        assert!(one.perform(&"k", &"pay", "e-1").unwrap());
        assert!(two.perform(&"k", &"pay", "e-1").unwrap());
        one.undo(&"k", "e-1").unwrap();
        two.undo(&"k", "e-1").unwrap();
        one.undo(&"k", "e-2").unwrap();
        assert!(!two.perform(&"k", &"pay", "e-2").unwrap());
        let accounts = Ledger::accounts(&path).unwrap();
        let counts = |effect: &str| (accounts[effect].done, accounts[effect].undone);
        assert_eq!((counts("e-1"), counts("e-2")), ((1, 1), (0, 1)));
        assert_eq!(accounts["e-1"].task, "pay");
    }
}
