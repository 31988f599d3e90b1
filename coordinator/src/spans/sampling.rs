//! Which traces are recorded: decided once, where a trace begins, and carried on by every message.
//!
//! Whoever starts a saga with a trace context has decided. Else the run's id does, by the ratio that is
//! configured: without chance, so that every owner, and every replay, decides alike.

use dirigent_contracts::{
    header::TraceContext,
    id::RunId,
    trace::{identity, trace_of},
};

/// Variable that names the sampler.
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
/// Variable with its ratio.
const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
/// The random part of a trace id: its last 56 bits (W3C trace context, level 2).
const RANDOM_BITS: i32 = 56;

/// The sampling decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sampling {
    /// Whether a caller's decision counts.
    follows_caller: bool,
    /// Traces whose random part is less are not recorded.
    threshold: u64,
}

impl Default for Sampling {
    /// Records every trace, but those whose caller has decided otherwise.
    fn default() -> Self {
        Self::ratio(true, 1.0)
    }
}

impl Sampling {
    /// What OpenTelemetry's variables say. A text that means nothing is said in the log and passed over,
    /// as its specification asks.
    pub(crate) fn from_environment() -> Self {
        let text = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        Self::parse(text(SAMPLER).as_deref(), text(ARGUMENT).as_deref())
    }

    fn parse(sampler: Option<&str>, argument: Option<&str>) -> Self {
        let ratio = || match argument {
            None => 1.0,
            Some(text) => match text.parse::<f64>() {
                Ok(ratio) if (0.0..=1.0).contains(&ratio) => ratio,
                _ => {
                    tracing::warn!(text, "{ARGUMENT} is no ratio from 0 to 1; taken as 1");
                    1.0
                }
            },
        };
        match sampler {
            None | Some("parentbased_always_on") => Self::default(),
            Some("parentbased_always_off") => Self::ratio(true, 0.0),
            Some("parentbased_traceidratio") => Self::ratio(true, ratio()),
            Some("always_on") => Self::ratio(false, 1.0),
            Some("always_off") => Self::ratio(false, 0.0),
            Some("traceidratio") => Self::ratio(false, ratio()),
            Some(other) => {
                tracing::warn!(
                    sampler = other,
                    "{SAMPLER} names a sampler that is not known here; \
                     taken as parentbased_always_on"
                );
                Self::default()
            }
        }
    }

    fn ratio(follows_caller: bool, ratio: f64) -> Self {
        let all = 2_f64.powi(RANDOM_BITS);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and 2^56"
        )]
        let threshold = ((1.0 - ratio) * all) as u64;
        Self {
            follows_caller,
            threshold,
        }
    }

    /// Whether a run's trace is recorded.
    pub(crate) fn admits(self, run: RunId, caller: Option<TraceContext>) -> bool {
        match caller {
            Some(caller) if self.follows_caller => caller.sampled,
            _ => {
                let random = trace_of(run, caller) & ((1 << RANDOM_BITS) - 1);
                random >= u128::from(self.threshold)
            }
        }
    }

    /// The context that a message of a run carries, caused by this span of it.
    pub(crate) fn context(
        self,
        run: RunId,
        caller: Option<TraceContext>,
        span: u64,
    ) -> TraceContext {
        TraceContext {
            trace: trace_of(run, caller),
            span,
            sampled: self.admits(run, caller),
        }
    }

    /// The context of the command, or of the start of a child, that is an attempt.
    pub(crate) fn attempt(
        self,
        command: dirigent_contracts::id::CommandId,
        caller: Option<TraceContext>,
    ) -> TraceContext {
        self.context(command.effect.run, caller, identity::of_attempt(command))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dirigent_contracts::{
        id::{DefinitionName, JournalSeq, SagaAddress, SagaKey},
        time::Timestamp,
    };

    fn runs(count: u64) -> impl Iterator<Item = RunId> {
        let saga = SagaAddress {
            definition: DefinitionName::new("order").unwrap(),
            key: SagaKey::new("o-1").unwrap(),
        };
        (0..count).map(move |seq| RunId::derive(&saga, JournalSeq(seq), Timestamp(0)))
    }

    fn caller(sampled: bool) -> TraceContext {
        TraceContext {
            trace: u128::MAX,
            span: 1,
            sampled,
        }
    }

    #[test]
    fn a_ratio_records_that_share_of_runs() {
        let half = Sampling::parse(Some("parentbased_traceidratio"), Some("0.25"));
        let recorded = runs(10_000).filter(|run| half.admits(*run, None)).count();
        assert!((2_300..2_700).contains(&recorded), "{recorded}");
    }

    #[test]
    fn what_a_caller_decided_is_honoured_unless_the_sampler_ignores_it() {
        let run = runs(1).next().unwrap();
        let off = Sampling::parse(Some("parentbased_always_off"), None);
        assert!(off.admits(run, Some(caller(true))));
        assert!(!off.admits(run, None));
        assert!(!Sampling::default().admits(run, Some(caller(false))));
        assert!(Sampling::parse(Some("always_on"), None).admits(run, Some(caller(false))));
        assert!(!Sampling::parse(Some("always_off"), None).admits(run, Some(caller(true))));
    }

    #[test]
    fn what_cannot_be_understood_records_everything() {
        let run = runs(1).next().unwrap();
        for (sampler, argument) in [("sometimes", None), ("traceidratio", Some("2"))] {
            assert!(Sampling::parse(Some(sampler), argument).admits(run, None));
        }
    }
}
