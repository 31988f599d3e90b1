//! Partitions: the loop that joins the pure engine to the broker, and who runs it.
//!
//! A partition has one owner at a time ([`membership`], [`ownership`]), which folds each entry of the
//! journal in order, publishes the effects, and writes snapshots behind ([`owner`] decides,
//! [`processor`] does). Two owners for a moment are wasteful but harmless: both fold the same entries to the same effects
//! with the same message ids, and snapshots are written by compare-and-set.
//!
//! The order of commits, which everything rests on, stands in [`owner`].

mod clock;
#[cfg(test)]
mod cost;
mod errand;
mod live;
mod membership;
pub(crate) mod messages;
mod owner;
mod ownership;
mod processor;
mod refold;
pub(crate) mod snapshot;

#[cfg(test)]
pub(crate) use clock::Clock;
#[cfg(test)]
pub(crate) use membership::{BEAT_INTERVAL, Lease, Member, Membership, Step};
#[cfg(test)]
pub(crate) use owner::{Action, Debt, Owner, Refused};
#[cfg(test)]
pub(crate) use ownership::LOOK_INTERVAL;
pub(crate) use ownership::{Owners, Ownership, OwnershipError};
pub(crate) use processor::{Tools, decode_entry as decode, now};
pub(crate) use refold::Refold;
