//! Whether every saga ended once, as its input demands, and left the side effects that it should.
//!
//! It knows nothing of how sagas are run: it compares what was asked for with what everybody can see
//! of the outcomes, and with the workers' own ledger.

use crate::ledger::Account;
use dirigent_contracts::{id::SagaAddress, outcome::SagaStatus, time::Timestamp};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

/// A saga that was asked for, and that the system has acknowledged.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Which.
    pub saga: SagaAddress,
    /// From when on it has nothing to wait for but the system.
    pub due: Timestamp,
    /// How it must end.
    pub demand: Demand,
}

/// How a saga must end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Its outcome.
    pub status: SagaStatus,
    /// What becomes of the effect of each task; a task that is not named must have done nothing.
    pub effects: BTreeMap<&'static str, Fate>,
    /// Whether it publishes a domain event.
    pub tells: bool,
}

/// What must have become of an effect in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Done, and not undone.
    Stands,
    /// Done, and undone.
    Undone,
    /// Undone if it was done at all: the saga may have failed elsewhere before.
    UndoneIfDone,
}

/// The outcome of a saga, as the system has told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Which.
    pub saga: SagaAddress,
    /// The word of its outcome.
    pub status: String,
    /// When the broker stored that.
    pub at: Timestamp,
}

/// Everything that can be seen from outside.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The outcomes, one for each message.
    pub ended: Vec<Ended>,
    /// The ids of the domain events of each saga, by its key.
    pub told: BTreeMap<String, BTreeSet<String>>,
    /// The workers' ledger.
    pub accounts: Vec<Account>,
}

/// What the checker found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Sagas without an outcome.
    pub lost: Vec<String>,
    /// Sagas with two outcomes, two domain events, or a step that was done twice.
    pub doubled: Vec<String>,
    /// Sagas that ended, or left effects, other than they should; and sagas that nobody asked for.
    pub wrong: Vec<String>,
    /// The longest time in which no saga ended although one was due.
    pub longest_stall: Duration,
    /// When that was over.
    pub stalled_until: Timestamp,
    /// The longest that one saga took from when it was due.
    pub slowest: Duration,
}

impl Verdict {
    /// Whether nothing is lost, doubled or wrong.
    pub fn is_clean(&self) -> bool {
        self.lost.is_empty() && self.doubled.is_empty() && self.wrong.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, sagas) in [
            ("lost", &self.lost),
            ("doubled", &self.doubled),
            ("wrong", &self.wrong),
        ] {
            writeln!(f, "{what}: {}", sagas.len())?;
            for saga in sagas.iter().take(10) {
                writeln!(f, "  {saga}")?;
            }
        }
        Ok(())
    }
}

/// Judges what was seen by what was asked for.
pub fn judge(asked: &[Asked], seen: &Seen) -> Verdict {
    let mut verdict = Verdict {
        lost: Vec::new(),
        doubled: Vec::new(),
        wrong: Vec::new(),
        longest_stall: Duration::ZERO,
        stalled_until: Timestamp(0),
        slowest: Duration::ZERO,
    };
    let mut endings: BTreeMap<&SagaAddress, Vec<&Ended>> = BTreeMap::new();
    for ended in &seen.ended {
        endings.entry(&ended.saga).or_default().push(ended);
    }
    let mut accounts: BTreeMap<&str, Vec<&Account>> = BTreeMap::new();
    for account in &seen.accounts {
        accounts.entry(&account.key).or_default().push(account);
    }
    for Asked { saga, due, demand } in asked {
        let key = saga.key.as_str();
        let ended = endings.remove(saga).unwrap_or_default();
        let statuses: Vec<&str> = ended.iter().map(|ended| ended.status.as_str()).collect();
        match statuses[..] {
            [] => verdict.lost.push(saga.to_string()),
            [status] if status == demand.status.as_str() => {}
            [status] => verdict.wrong.push(format!("{saga} ended {status}")),
            _ => verdict.doubled.push(format!("{saga} ended {statuses:?}")),
        }
        for ended in ended {
            verdict.slowest = verdict.slowest.max(ended.at.since(*due));
        }
        let told = seen.told.get(key).map_or(0, BTreeSet::len);
        if told > 1 {
            verdict
                .doubled
                .push(format!("{saga} published {told} events"));
        } else if !statuses.is_empty() && (told == 1) != demand.tells {
            verdict
                .wrong
                .push(format!("{saga} published {told} events"));
        }
        let accounts = accounts.remove(key).unwrap_or_default();
        if !statuses.is_empty() {
            balance(saga, demand, &accounts, &mut verdict);
        }
    }
    let strangers = endings.keys().map(ToString::to_string);
    let strangers = strangers.chain(accounts.keys().map(ToString::to_string));
    let strangers = strangers.map(|saga| format!("nobody asked for {saga}"));
    verdict.wrong.extend(strangers);
    (verdict.longest_stall, verdict.stalled_until) = longest_stall(asked, &seen.ended);
    verdict
}

/// Compares the effects of a saga with what its outcome demands.
fn balance(saga: &SagaAddress, demand: &Demand, accounts: &[&Account], verdict: &mut Verdict) {
    let done = |task: &str| {
        accounts
            .iter()
            .filter(|account| account.done > 0 && account.task == task)
            .collect::<Vec<_>>()
    };
    for (task, fate) in &demand.effects {
        let effects = done(task);
        if effects.len() > 1 {
            verdict
                .doubled
                .push(format!("{saga} did {task} as {effects:?}"));
            continue;
        }
        let undone = effects.first().map(|account| account.undone > 0);
        let is_right = match fate {
            Fate::Stands => undone == Some(false),
            Fate::Undone => undone == Some(true),
            Fate::UndoneIfDone => undone != Some(false),
        };
        if !is_right {
            verdict.wrong.push(format!(
                "{saga}: {task} must be {fate:?}, and is {effects:?}"
            ));
        }
    }
    for account in accounts {
        if account.done > 0 && !demand.effects.contains_key(account.task.as_str()) {
            verdict
                .wrong
                .push(format!("{saga} must not do {}", account.task));
        }
    }
}

/// The longest time between two endings, or before the first, in which a saga was due throughout; and
/// when it was over.
fn longest_stall(asked: &[Asked], ended: &[Ended]) -> (Duration, Timestamp) {
    let mut endings: Vec<(Timestamp, &SagaAddress)> =
        ended.iter().map(|ended| (ended.at, &ended.saga)).collect();
    endings.sort_unstable();
    let mut due: BTreeMap<&SagaAddress, Timestamp> =
        asked.iter().map(|asked| (&asked.saga, asked.due)).collect();
    let mut by_due: BTreeSet<(Timestamp, &SagaAddress)> =
        due.iter().map(|(saga, due)| (*due, *saga)).collect();
    let mut longest = (Duration::ZERO, Timestamp(0));
    let mut last = Timestamp(i64::MIN);
    for (at, saga) in endings {
        if let Some((oldest, _)) = by_due.first() {
            longest = longest.max((at.since((*oldest).max(last)), at));
        }
        last = at;
        if let Some(due) = due.remove(saga) {
            by_due.remove(&(due, saga));
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saga(key: &str) -> SagaAddress {
        SagaAddress {
            definition: "d".parse().unwrap(),
            key: key.parse().unwrap(),
        }
    }

    fn asked(key: &str, due: i64, status: SagaStatus, fate: Fate) -> Asked {
        Asked {
            saga: saga(key),
            due: Timestamp(due * 1_000_000),
            demand: Demand {
                status,
                effects: [("do", fate)].into(),
                tells: false,
            },
        }
    }

    fn ended(key: &str, at: i64, status: &str) -> Ended {
        Ended {
            saga: saga(key),
            status: status.to_owned(),
            at: Timestamp(at * 1_000_000),
        }
    }

    fn account(key: &str, done: usize, undone: usize) -> Account {
        Account {
            key: key.to_owned(),
            task: "do".to_owned(),
            done,
            undone,
        }
    }

    fn seen(ended: Vec<Ended>, accounts: Vec<Account>) -> Seen {
        Seen {
            ended,
            accounts,
            ..Seen::default()
        }
    }

    #[test]
    fn what_is_as_it_should_be_is_clean() {
        let asked = [
            asked("a", 0, SagaStatus::Succeeded, Fate::Stands),
            asked("b", 0, SagaStatus::Compensated, Fate::UndoneIfDone),
        ];
        let ended = vec![ended("a", 1, "succeeded"), ended("b", 2, "compensated")];
        let verdict = judge(&asked, &seen(ended, vec![account("a", 1, 0)]));
        assert!(verdict.is_clean(), "{verdict}");
        assert_eq!(verdict.slowest, Duration::from_secs(2));
    }

    #[test]
    fn what_is_lost_doubled_or_unbalanced_is_found() {
        let asked = [
            asked("lost", 0, SagaStatus::Succeeded, Fate::Stands),
            asked("twice", 0, SagaStatus::Succeeded, Fate::Stands),
            asked("again", 0, SagaStatus::Succeeded, Fate::Stands),
            asked("other", 0, SagaStatus::Succeeded, Fate::Stands),
            asked("left", 0, SagaStatus::Compensated, Fate::Undone),
        ];
        let ended = vec![
            ended("twice", 1, "succeeded"),
            ended("twice", 2, "succeeded"),
            ended("again", 1, "succeeded"),
            ended("other", 1, "compensated"),
            ended("left", 1, "compensated"),
            ended("stranger", 1, "succeeded"),
        ];
        let accounts = vec![
            account("twice", 1, 0),
            account("again", 1, 0),
            account("again", 1, 0),
            account("other", 1, 0),
            account("left", 1, 0),
        ];
        let verdict = judge(&asked, &seen(ended, accounts));
        assert_eq!(verdict.lost, ["d/lost"]);
        assert_eq!(verdict.doubled.len(), 2, "{verdict}");
        assert_eq!(verdict.wrong.len(), 3, "{verdict}");
    }

    #[test]
    fn a_stall_is_only_time_in_which_something_was_due() {
        let asked = [
            asked("a", 0, SagaStatus::Succeeded, Fate::Stands),
            asked("b", 10, SagaStatus::Succeeded, Fate::Stands),
            asked("c", 12, SagaStatus::Succeeded, Fate::Stands),
        ];
        let ended = [
            ended("a", 1, "succeeded"),
            ended("c", 13, "succeeded"),
            ended("b", 15, "succeeded"),
        ];
        let stall = (Duration::from_secs(3), Timestamp(13_000_000));
        assert_eq!(longest_stall(&asked, &ended), stall);
    }
}
