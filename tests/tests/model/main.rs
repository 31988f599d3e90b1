//! The simulation's model of `JetStream`, held against a real nats-server: the same random operations
//! on both, and the same answers.

#[path = "../../simulation/jetstream.rs"]
#[allow(dead_code, reason = "the simulation uses more of it")]
mod jetstream;

use async_nats::{
    HeaderMap,
    jetstream::{
        AckKind, Context,
        consumer::{AckPolicy, PullConsumer, pull},
        context::PublishErrorKind,
        stream,
    },
};
use dirigent_contracts::header;
use dirigent_tests::nats::NatsServer;
use futures::StreamExt;
use jetstream::{Answer, Draft, Stream};
use std::{collections::BTreeMap, time::Duration};

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(3_600);
/// How long a server may take to deliver what it has.
const PATIENCE: Duration = Duration::from_secs(30);
const SEEDS: u64 = 12;
const STEPS: u32 = 150;
const SUBJECTS: [&str; 3] = ["m.a", "m.b", "m.c"];

/// Both sides of the comparison.
struct Pair {
    server: NatsServer,
    context: Context,
    consumer: PullConsumer,
    /// How many consumers there were before; the consumer's name.
    life: u32,
    model: Stream,
    /// Delivered by the server and not acknowledged, by sequence.
    in_hand: BTreeMap<u64, async_nats::jetstream::Message>,
}

impl Pair {
    async fn start() -> anyhow::Result<Self> {
        let server = NatsServer::start().await?;
        let context = async_nats::jetstream::new(server.connect().await?);
        let config = stream::Config {
            name: "M".into(),
            subjects: vec!["m.>".into()],
            duplicate_window: LONG,
            ..stream::Config::default()
        };
        let stream = context.create_stream(config).await?;
        let consumer = consume(&stream, "0").await?;
        let mut model = Stream::new(i64::MAX, false);
        model.consumer("0", i64::MAX);
        let in_hand = BTreeMap::new();
        Ok(Self {
            server,
            context,
            consumer,
            life: 0,
            model,
            in_hand,
        })
    }

    async fn publish(&mut self, draft: Draft) -> anyhow::Result<()> {
        let mut headers = HeaderMap::new();
        let expected = draft.expected_last.map(|seq| seq.to_string());
        for (name, value) in [
            (header::MESSAGE_ID, &draft.id),
            (header::EXPECTED_LAST_SUBJECT_SEQUENCE, &expected),
            (
                header::EXPECTED_LAST_SUBJECT_SEQUENCE_SUBJECT,
                &draft.expected_subject,
            ),
        ] {
            if let Some(value) = value {
                headers.insert(name, value.as_str());
            }
        }
        let (subject, body) = (draft.subject.clone(), draft.body.clone());
        let sent = self
            .context
            .publish_with_headers(subject, headers, body.into());
        let real = match sent.await?.await {
            Ok(ack) if ack.duplicate => Answer::Duplicate(ack.sequence),
            Ok(ack) => Answer::Stored(ack.sequence),
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Answer::WrongLast,
            Err(error) => return Err(error.into()),
        };
        assert_eq!(self.model.publish(0, draft.clone()), real, "{draft:?}");
        Ok(())
    }

    async fn fetch(&mut self) -> anyhow::Result<()> {
        let model = self.model.fetch(&self.life.to_string(), 0).cloned();
        // A server may take a moment until it offers again what was given back; what the model does
        // not have, the server must not have at once.
        let mut batch = if model.is_some() {
            let batch = self.consumer.batch().max_messages(1).expires(PATIENCE);
            batch.messages().await?
        } else {
            self.consumer.fetch().max_messages(1).messages().await?
        };
        let real = batch.next().await.transpose().map_err(anyhow::Error::msg)?;
        let seq = match &real {
            Some(message) => Some(message.info().map_err(anyhow::Error::msg)?.stream_sequence),
            None => None,
        };
        assert_eq!(model.as_ref().map(|stored| stored.seq), seq);
        if let (Some(stored), Some(message)) = (model, real) {
            assert_eq!(stored.draft.subject, message.subject.as_str());
            assert_eq!(stored.draft.body, message.payload);
            self.in_hand.insert(stored.seq, message);
        }
        Ok(())
    }

    async fn purge(&mut self, subject: &str, keep_from: u64) -> anyhow::Result<()> {
        let stream = self.context.get_stream("M").await?;
        let purge = stream.purge().filter(subject).sequence(keep_from);
        let real = purge.await?.purged;
        assert_eq!(self.model.purge(subject, keep_from), real);
        // What was given back before a purge comes again from the model, and not always from a server.
        self.begin_consumer().await
    }

    async fn restart(&mut self) -> anyhow::Result<()> {
        self.server.restart().await?;
        self.context = async_nats::jetstream::new(self.server.connect().await?);
        self.model.restart();
        // A server that was killed may have lost acknowledgements of its consumers, and delivers those
        // messages again. So what is compared are ids, sequences and messages.
        self.begin_consumer().await
    }

    /// A new consumer takes the place of the one so far, and reads from the beginning.
    async fn begin_consumer(&mut self) -> anyhow::Result<()> {
        self.life += 1;
        let name = self.life.to_string();
        let stream = self.context.get_stream("M").await?;
        self.consumer = consume(&stream, &name).await?;
        self.model.consumer(&name, i64::MAX);
        self.in_hand.clear();
        Ok(())
    }

    /// Everything that can be read is the same.
    async fn compare(&self) -> anyhow::Result<()> {
        let stream = self.context.get_stream("M").await?;
        assert_eq!(stream.cached_info().state.last_sequence, self.model.last());
        for seq in 1..=self.model.last() {
            let real = stream.get_raw_message(seq).await.ok();
            let real = real.map(|message| (message.subject.to_string(), message.payload.to_vec()));
            let model = self.model.get(seq);
            let model =
                model.map(|stored| (stored.draft.subject.clone(), stored.draft.body.clone()));
            assert_eq!(model, real, "message {seq}");
        }
        for subject in SUBJECTS {
            let real = stream.get_last_raw_message_by_subject(subject).await.ok();
            let model = self.model.last_of(subject).map(|stored| stored.seq);
            assert_eq!(
                model,
                real.map(|message| message.sequence),
                "the last of {subject}"
            );
        }
        Ok(())
    }
}

async fn consume(stream: &stream::Stream, name: &str) -> anyhow::Result<PullConsumer> {
    let config = pull::Config {
        durable_name: Some(name.to_owned()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: LONG,
        ..pull::Config::default()
    };
    Ok(stream.create_consumer(config).await?)
}

/// One random operation on both.
async fn step(pair: &mut Pair, rng: &mut fastrand::Rng, n: u32) -> anyhow::Result<()> {
    let subject = SUBJECTS[rng.usize(..SUBJECTS.len())];
    match rng.u8(..100) {
        0..55 => {
            let other = SUBJECTS[rng.usize(..SUBJECTS.len())];
            let about = rng.bool().then(|| other.to_owned());
            let last = pair.model.last_of(about.as_deref().unwrap_or(subject));
            let last = last.map_or(0, |stored| stored.seq);
            let expected = match rng.u8(..6) {
                0 => Some(0),
                1 | 2 => Some(last),
                3 => Some(last + 1),
                _ => None,
            };
            pair.publish(Draft {
                subject: subject.to_owned(),
                id: rng.bool().then(|| format!("id-{}", rng.u8(..30))),
                expected_last: expected,
                expected_subject: about.filter(|_| expected.is_some()),
                body: n.to_string().into_bytes(),
            })
            .await
        }
        55..75 => pair.fetch().await,
        75..85 => {
            if let Some((seq, message)) = pair.in_hand.pop_first() {
                message.double_ack().await.map_err(anyhow::Error::msg)?;
                assert!(
                    pair.model.ack(&pair.life.to_string(), seq),
                    "{seq} was in hand"
                );
            }
            Ok(())
        }
        85..92 => {
            if let Some((seq, message)) = pair.in_hand.pop_last() {
                message
                    .double_ack_with(AckKind::Nak(None))
                    .await
                    .map_err(anyhow::Error::msg)?;
                pair.model.give_back(&pair.life.to_string(), seq);
                pair.fetch().await?;
            }
            Ok(())
        }
        92..98 => {
            let keep_from = rng.u64(1..=pair.model.last() + 1);
            pair.purge(subject, keep_from).await
        }
        _ => pair.restart().await,
    }
}

#[tokio::test]
async fn the_model_answers_as_a_server_does() -> anyhow::Result<()> {
    for seed in 0..SEEDS {
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut pair = Pair::start().await?;
        for n in 0..STEPS {
            step(&mut pair, &mut rng, n).await?;
        }
        pair.compare().await?;
    }
    Ok(())
}
