//! What there is to undo, and how far undoing has come.
//!
//! A stack for each scope, last in, first out; the stacks of a Parallel's branches or a Map's
//! iterations are one entry of the scope around them and are undone side by side, each in reverse
//! (Garcia-Molina and Salem, "Sagas", 1987, with the parallel sagas of its section 6).

use dirigent_contracts::{outcome::Failure, time::Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{collections::BTreeSet, sync::Arc};

/// One entry of the stack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Undo {
    /// A step.
    Step(Box<UndoStep>),
    /// What branches or iterations did; undone side by side.
    Branches(Vec<Vec<Undo>>),
    /// What the items of a distributed Map did, which undo themselves when they are told to.
    Items(Box<UndoItems>),
}

/// The items of a distributed Map that are to be undone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct UndoItems {
    pub(super) machine: u32,
    pub(super) state: u32,
    /// The step that they are attempts of.
    pub(super) step: u32,
    /// Indices of those that have succeeded and wait to be told.
    pub(super) held: BTreeSet<u32>,
    /// Indices of those that were told, and have not ended yet.
    pub(super) closing: BTreeSet<u32>,
}

/// A step that succeeded, or whose outcome is unknown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct UndoStep {
    pub(super) machine: u32,
    pub(super) state: u32,
    /// Number of the step.
    pub(super) step: u32,
    /// The input of the undo, evaluated when the step succeeded or became unknown.
    pub(super) input: Arc<Value>,
    /// Why it could not be evaluated although the step's result is known: a person is to undo the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unfit: Option<Failure>,
    /// What is not known yet; `None` if the step succeeded.
    pub(super) doubt: Option<Doubt>,
}

/// What is not known of a step that may have happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Doubt {
    /// Attempts that may have succeeded, and may still say so.
    pub(super) attempts: BTreeSet<u32>,
    /// Until when it is worth waiting for their answer.
    pub(super) settles_at: Timestamp,
    /// The state's effective input, to evaluate the undo's arguments if success is learned late.
    pub(super) input: Arc<Value>,
    /// The variables that the state saw.
    pub(super) variables: Map<String, Value>,
    /// The context object that it saw, without the saga's input.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub(super) context: Value,
}

/// One line of undoing: a stack, and what is being undone of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Track {
    /// What is still to be undone, the next last.
    pub(super) stack: Vec<Undo>,
    /// What is being undone.
    pub(super) current: Option<Current>,
}

/// What a track is doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Current {
    /// Waiting to learn whether the step happened.
    Settling(Box<UndoStep>),
    /// Undoing a step.
    Undoing(Box<Undoing>),
    /// Undoing branches, side by side.
    Branches(Vec<Track>),
    /// Items of a distributed Map undo themselves.
    Items(Box<UndoItems>),
}

/// The undoing of one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Undoing {
    pub(super) of: UndoStep,
    /// Number of the undo's own step.
    pub(super) step: u32,
    /// Number of the last attempt.
    pub(super) attempt: u32,
    /// How often each rule of the undo's Retry has been used.
    pub(super) retries: Vec<u32>,
    pub(super) phase: UndoPhase,
    /// When the pause before another attempt began, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rests_since: Option<Timestamp>,
}

/// How far the undoing of one step has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum UndoPhase {
    /// An attempt is out.
    Attempt {
        /// When it was asked for.
        since: Timestamp,
        /// When it is given up.
        deadline: Timestamp,
    },
    /// The pause before another attempt.
    Until(Timestamp),
    /// The saga that was to undo the step has failed in this way, but has not ended: no other begins beside it.
    Closing(Failure),
    /// All attempts failed: a person is needed.
    Stuck(Failure),
}

impl Undoing {
    /// Whether the answer to this attempt is waited for.
    pub(super) fn awaits(&self, attempt: u32) -> bool {
        self.attempt == attempt && matches!(self.phase, UndoPhase::Attempt { .. })
    }

    /// Why this attempt, a saga, is to end without having undone the step; `None` if it is not.
    pub(super) fn closes(&self, attempt: u32) -> Option<&Failure> {
        match &self.phase {
            UndoPhase::Closing(failure) if self.attempt == attempt => Some(failure),
            _ => None,
        }
    }

    /// When the attempt that is out was asked for; `now` if none is.
    pub(super) fn since(&self, now: Timestamp) -> Timestamp {
        match self.phase {
            UndoPhase::Attempt { since, .. } => since,
            UndoPhase::Until(_) | UndoPhase::Closing(_) | UndoPhase::Stuck(_) => now,
        }
    }
}

impl Track {
    pub(super) fn new(stack: Vec<Undo>) -> Self {
        Self {
            stack,
            current: None,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.stack.is_empty() && self.current.is_none()
    }

    pub(super) fn next_deadline(&self) -> Timestamp {
        match &self.current {
            None => Timestamp::NEVER,
            Some(Current::Settling(step)) => step
                .doubt
                .as_ref()
                .map_or(Timestamp::NEVER, |doubt| doubt.settles_at),
            Some(Current::Undoing(undoing)) => match &undoing.phase {
                UndoPhase::Attempt { deadline, .. } => *deadline,
                UndoPhase::Until(at) => *at,
                UndoPhase::Closing(_) | UndoPhase::Stuck(_) => Timestamp::NEVER,
            },
            Some(Current::Branches(tracks)) => tracks
                .iter()
                .map(Self::next_deadline)
                .min()
                .unwrap_or(Timestamp::NEVER),
            Some(Current::Items(_)) => Timestamp::NEVER,
        }
    }

    pub(super) fn stuck_at(&self) -> Option<&Failure> {
        match &self.current {
            Some(Current::Undoing(undoing)) => match &undoing.phase {
                UndoPhase::Stuck(failure) => Some(failure),
                _ => None,
            },
            Some(Current::Branches(tracks)) => tracks.iter().find_map(Self::stuck_at),
            Some(Current::Settling(_) | Current::Items(_)) | None => None,
        }
    }

    /// Finds a step of this track by its number, wherever it waits.
    pub(super) fn doubtful_mut(&mut self, step: u32) -> Option<&mut UndoStep> {
        let current = match &mut self.current {
            Some(Current::Settling(of)) if of.step == step => Some(of.as_mut()),
            Some(Current::Branches(tracks)) => {
                tracks.iter_mut().find_map(|track| track.doubtful_mut(step))
            }
            _ => None,
        };
        current.or_else(|| doubtful_in(&mut self.stack, step))
    }

    /// Finds the items of a distributed Map by their step, wherever they wait.
    pub(super) fn items_mut(&mut self, step: u32) -> Option<&mut UndoItems> {
        let current = match &mut self.current {
            Some(Current::Items(items)) if items.step == step => Some(items.as_mut()),
            Some(Current::Branches(tracks)) => {
                tracks.iter_mut().find_map(|track| track.items_mut(step))
            }
            _ => None,
        };
        current.or_else(|| items_in(&mut self.stack, step))
    }

    /// The undoing that is under way as this step.
    pub(super) fn undoing_mut(&mut self, step: u32) -> Option<&mut Undoing> {
        self.undoings_mut()
            .into_iter()
            .find(|undoing| undoing.step == step)
    }

    /// Everything that is being undone.
    pub(super) fn undoings_mut(&mut self) -> Vec<&mut Undoing> {
        match &mut self.current {
            Some(Current::Undoing(undoing)) => vec![undoing.as_mut()],
            Some(Current::Branches(tracks)) => {
                tracks.iter_mut().flat_map(Self::undoings_mut).collect()
            }
            Some(Current::Settling(_) | Current::Items(_)) | None => Vec::new(),
        }
    }

    /// Whether the answer to this attempt of an undo is waited for.
    pub(super) fn awaits(&self, step: u32, attempt: u32) -> bool {
        match &self.current {
            Some(Current::Undoing(undoing)) => undoing.step == step && undoing.awaits(attempt),
            Some(Current::Branches(tracks)) => {
                tracks.iter().any(|track| track.awaits(step, attempt))
            }
            Some(Current::Settling(_) | Current::Items(_)) | None => false,
        }
    }

    /// Takes the undoing that is under way as this step for done.
    pub(super) fn clear(&mut self, step: u32) {
        match &mut self.current {
            Some(Current::Undoing(undoing)) if undoing.step == step => self.current = None,
            Some(Current::Branches(tracks)) => {
                for track in tracks {
                    track.clear(step);
                }
            }
            _ => {}
        }
    }

    /// The states still to be undone, the next first.
    pub(super) fn steps(&self) -> Vec<(u32, u32)> {
        let mut steps = match &self.current {
            None => Vec::new(),
            Some(Current::Settling(of)) => vec![(of.machine, of.state)],
            Some(Current::Undoing(undoing)) => vec![(undoing.of.machine, undoing.of.state)],
            Some(Current::Branches(tracks)) => tracks.iter().flat_map(Self::steps).collect(),
            Some(Current::Items(items)) => vec![(items.machine, items.state)],
        };
        steps.extend(steps_of(&self.stack));
        steps
    }
}

/// Finds a step of unknown outcome by its number.
pub(super) fn doubtful_in(stack: &mut [Undo], step: u32) -> Option<&mut UndoStep> {
    stack.iter_mut().find_map(|undo| match undo {
        Undo::Step(of) => (of.step == step && of.doubt.is_some()).then_some(of.as_mut()),
        Undo::Branches(stacks) => stacks.iter_mut().find_map(|stack| doubtful_in(stack, step)),
        Undo::Items(_) => None,
    })
}

/// Finds the items of a distributed Map by their step.
pub(super) fn items_in(stack: &mut [Undo], step: u32) -> Option<&mut UndoItems> {
    stack.iter_mut().find_map(|undo| match undo {
        Undo::Step(_) => None,
        Undo::Branches(stacks) => stacks.iter_mut().find_map(|stack| items_in(stack, step)),
        Undo::Items(items) => (items.step == step).then_some(items.as_mut()),
    })
}

/// The states of a stack, the next to be undone first.
pub(super) fn steps_of(stack: &[Undo]) -> Vec<(u32, u32)> {
    let mut steps = Vec::new();
    for undo in stack.iter().rev() {
        match undo {
            Undo::Step(of) => steps.push((of.machine, of.state)),
            Undo::Branches(stacks) => {
                for stack in stacks {
                    steps.extend(steps_of(stack));
                }
            }
            Undo::Items(items) => steps.push((items.machine, items.state)),
        }
    }
    steps
}

/// Wraps the stacks of branches into one entry, or none if nothing was done in them.
pub(super) fn branches(stacks: Vec<Vec<Undo>>) -> Option<Undo> {
    let stacks: Vec<_> = stacks
        .into_iter()
        .filter(|stack| !stack.is_empty())
        .collect();
    (!stacks.is_empty()).then_some(Undo::Branches(stacks))
}
