//! The object store: items of distributed Maps are read from it, and their results written to it.
//!
//! An object is read chunk by chunk, never whole, and parsed as it comes by a thread of its own. A
//! reader stays open between two questions about the same items; one that was lost, with its
//! coordinator, is opened again and passes over what was read before: so many items of an object, which
//! must be the same one, and of a listing the names up to the last one, whatever came and went since.

use super::BrokerError;
use crate::engine::store::{Content, Format, ItemSource, Items, StoreRequest, StoredObject};
use async_nats::jetstream::{
    Context,
    context::ObjectStoreErrorKind,
    object_store::{InfoErrorKind, ObjectInfo, ObjectMetadata, ObjectStore},
    stream::Stream,
};
use bytes::{Buf, Bytes};
use dirigent_contracts::{
    error_name,
    id::{CommandId, EffectId},
    limit,
    outcome::Failure,
    task::TaskResult,
};
use futures::StreamExt;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, json};
use std::{
    collections::HashMap,
    fmt,
    io::{self, BufRead, BufReader, Read},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{runtime::Handle, sync::mpsc};

/// Most readers that stay open; the others are opened again when they are asked.
const MOST_OPEN: usize = 32;
/// How many parsed items a reader has in hand.
const READ_AHEAD: usize = 256;
/// How often a request to the broker is repeated before the Map fails, and the pause between.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

/// The object store.
#[derive(Clone, Debug)]
pub(crate) struct Objects {
    context: Context,
    open: Arc<Mutex<HashMap<EffectId, Reader>>>,
}

/// Items on their way.
#[derive(Debug)]
struct Reader {
    items: mpsc::Receiver<Result<Value, String>>,
    read: u64,
    /// What is read: the object's own id, or of a listing the last name that was told.
    version: String,
}

impl Reader {
    /// Passes over what was read before. It could be read then, so what cannot be read now is worth another
    /// try; and an end before it is no end of the items.
    async fn pass_over(&mut self, skip: u64, name: &str) -> Result<(), Trouble> {
        while self.read < skip {
            match self.items.recv().await {
                Some(Ok(_)) => self.read += 1,
                Some(Err(reason)) => {
                    return Err(Trouble::Passing(format!(
                        "{name}, item {}: {reason}",
                        self.read
                    )));
                }
                None => {
                    return Err(Trouble::Final(format!(
                        "{name} has {} items, fewer than the {skip} that were read from it before",
                        self.read
                    )));
                }
            }
        }
        Ok(())
    }
}

/// Why a request failed: for good, or perhaps not.
#[derive(Debug, PartialEq)]
enum Trouble {
    Final(String),
    Passing(String),
}

impl Objects {
    pub(super) fn new(context: Context) -> Self {
        Self {
            context,
            open: Arc::default(),
        }
    }

    /// Does what is asked. A broker that is away is asked again for a while.
    pub(crate) async fn answer(&self, command: CommandId, request: StoreRequest) -> TaskResult {
        let error = match &request {
            StoreRequest::Read { .. } => error_name::ITEM_READER_FAILED,
            StoreRequest::Write(_) => error_name::RESULT_WRITER_FAILED,
        };
        let mut attempt = 1;
        loop {
            let done = match &request {
                StoreRequest::Read {
                    source,
                    skip,
                    version,
                } => {
                    let items = self.read(command.effect, source, *skip, version.as_deref());
                    items.await.map(|items| json!(items))
                }
                StoreRequest::Write(objects) => self.write(objects).await.map(|()| Value::Null),
            };
            let cause = match done {
                Ok(output) => {
                    let output = Arc::new(output);
                    return TaskResult::Succeeded { output };
                }
                Err(Trouble::Passing(reason)) if attempt < ATTEMPTS => {
                    tracing::warn!(%command, reason, "the object store does not answer");
                    tokio::time::sleep(PAUSE).await;
                    attempt += 1;
                    continue;
                }
                Err(Trouble::Passing(reason) | Trouble::Final(reason)) => reason,
            };
            return TaskResult::Failed {
                failure: Failure::new(error, cause),
                retryable: true,
            };
        }
    }

    async fn bucket(&self, name: &str) -> Result<ObjectStore, Trouble> {
        let store = self.context.get_object_store(name).await;
        store.map_err(|error| match error.kind() {
            ObjectStoreErrorKind::InvalidBucketName => {
                Trouble::Final(format!("'{name}' is not a name of a bucket"))
            }
            ObjectStoreErrorKind::GetStore => {
                // What the broker says of a stream that is not there.
                let reason = BrokerError::request(format!("the bucket '{name}'"), &error);
                let reason = reason.to_string();
                if reason.contains("not found") {
                    Trouble::Final(format!(
                        "there is no bucket '{name}': create it with `nats object add {name}`"
                    ))
                } else {
                    Trouble::Passing(reason)
                }
            }
        })
    }

    async fn read(
        &self,
        of: EffectId,
        source: &ItemSource,
        skip: u64,
        version: Option<&str>,
    ) -> Result<Items, Trouble> {
        let known = self.open.lock().ok().and_then(|mut open| open.remove(&of));
        let known = known.filter(|reader| reader.read == skip);
        let mut reader = match known {
            Some(reader) => reader,
            None => self.open(source, skip, version).await?,
        };
        let (mut items, mut bytes, mut last) = (Vec::new(), 0, false);
        while items.len() < limit::MAP_READ_ITEMS && bytes < limit::MAP_READ_BYTES {
            if source.most.is_some_and(|most| reader.read >= most) {
                last = true;
                break;
            }
            match reader.items.recv().await {
                None => {
                    last = true;
                    break;
                }
                Some(Err(reason)) => {
                    return Err(Trouble::Final(format!(
                        "{}, item {}: {reason}",
                        source.name(),
                        reader.read
                    )));
                }
                Some(Ok(item)) => {
                    reader.read += 1;
                    if matches!(source.content, Content::Listing { .. })
                        && let Some(name) = item["Key"].as_str()
                    {
                        name.clone_into(&mut reader.version);
                    }
                    bytes += item.to_string().len();
                    items.push(Arc::new(item));
                }
            }
        }
        let version = Some(reader.version.clone());
        if !last && let Ok(mut open) = self.open.lock() {
            if open.len() >= MOST_OPEN {
                let any = open.keys().next().copied();
                any.map(|any| open.remove(&any));
            }
            open.insert(of, reader);
        }
        Ok(Items {
            items,
            last,
            version,
        })
    }

    /// Begins to read, and passes over what was read before.
    async fn open(
        &self,
        source: &ItemSource,
        skip: u64,
        version: Option<&str>,
    ) -> Result<Reader, Trouble> {
        let store = self.bucket(&source.bucket).await?;
        let (sender, items) = mpsc::channel(READ_AHEAD);
        // Earlier builds gave a listing no version: all that is known is how many were told.
        let version = version.filter(|version| !version.is_empty());
        let (found, passed) = match &source.content {
            Content::Listing { prefix } => {
                let objects = list(&store, prefix, version).await?;
                tokio::spawn(async move {
                    for object in objects {
                        if sender.send(Ok(object)).await.is_err() {
                            return;
                        }
                    }
                });
                let passed = if version.is_some() { skip } else { 0 };
                (version.unwrap_or_default().to_owned(), passed)
            }
            Content::Object { key, format } => {
                let info = store.info(key).await.map_err(|error| match error.kind() {
                    InfoErrorKind::NotFound | InfoErrorKind::InvalidName => {
                        Trouble::Final(format!("there is no object {}", source.name()))
                    }
                    _ => Trouble::Passing(format!("{}: {error}", source.name())),
                })?;
                if info.deleted {
                    return Err(Trouble::Final(format!(
                        "there is no object {}: it was deleted",
                        source.name()
                    )));
                }
                let stream = format!("OBJ_{}", source.bucket);
                let stream = self.context.get_stream(&stream).await;
                let stream = stream.map_err(|error| Trouble::Passing(error.to_string()))?;
                let chunks = Chunks::new(stream, &info);
                let format = format.clone();
                tokio::task::spawn_blocking(move || {
                    if let Err(reason) = parse(chunks, &format, &sender) {
                        drop(sender.blocking_send(Err(reason)));
                    }
                });
                (info.nuid, 0)
            }
        };
        if version.is_some_and(|version| version != found) {
            return Err(Trouble::Final(format!(
                "{} was replaced while it was being read",
                source.name()
            )));
        }
        let mut reader = Reader {
            items,
            read: passed,
            version: found,
        };
        reader.pass_over(skip, &source.name()).await?;
        Ok(reader)
    }

    async fn write(&self, objects: &[StoredObject]) -> Result<(), Trouble> {
        for object in objects {
            let store = self.bucket(&object.bucket).await?;
            let metadata = ObjectMetadata {
                name: object.key.clone(),
                ..ObjectMetadata::default()
            };
            let put = store.put(metadata, &mut object.body.as_bytes()).await;
            put.map_err(|error| {
                Trouble::Passing(format!("{}/{}: {error}", object.bucket, object.key))
            })?;
        }
        Ok(())
    }
}

/// The objects of a bucket whose names come after one, in the words of S3's ListObjectsV2, by name.
async fn list(
    store: &ObjectStore,
    prefix: &str,
    after: Option<&str>,
) -> Result<Vec<Value>, Trouble> {
    let passing = |error: &dyn fmt::Display| Trouble::Passing(error.to_string());
    let mut listed = store.list().await.map_err(|error| passing(&error))?;
    let mut objects = Vec::new();
    while let Some(info) = listed.next().await {
        let info = info.map_err(|error| passing(&error))?;
        let was_told = after.is_some_and(|after| info.name.as_str() <= after);
        if info.deleted || was_told || !info.name.starts_with(prefix) {
            continue;
        }
        objects.push((
            info.name.clone(),
            json!({
                "Etag": info.digest,
                "Key": info.name,
                "LastModified": info.modified.map(|at| super::journal::timestamp(at).0 / 1_000_000),
                "Size": info.size,
                "StorageClass": "STANDARD",
            }),
        ));
    }
    objects.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(objects.into_iter().map(|(_, object)| object).collect())
}

/// The bytes of an object, fetched as they are read.
struct Chunks {
    stream: Stream,
    subject: String,
    /// Sequence to look for the next chunk from.
    next: u64,
    left: usize,
    chunk: Bytes,
    runtime: Handle,
}

impl Chunks {
    fn new(stream: Stream, info: &ObjectInfo) -> Self {
        Self {
            stream,
            subject: format!("$O.{}.C.{}", info.bucket, info.nuid),
            next: 1,
            left: info.chunks,
            chunk: Bytes::new(),
            runtime: Handle::current(),
        }
    }

    fn fetch(&mut self) -> io::Result<()> {
        let mut attempt = 1;
        loop {
            let asked = self
                .stream
                .direct_get_next_for_subject(self.subject.clone(), Some(self.next));
            match self.runtime.block_on(asked) {
                Ok(message) => {
                    self.next = message.sequence + 1;
                    self.left -= 1;
                    self.chunk = message.payload;
                    return Ok(());
                }
                Err(error) if attempt == ATTEMPTS => return Err(io::Error::other(error)),
                Err(_) => std::thread::sleep(PAUSE),
            }
            attempt += 1;
        }
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() && self.left > 0 {
            self.fetch()?;
        }
        let length = buffer.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

type Sender = mpsc::Sender<Result<Value, String>>;

/// Sends every item on; ends quietly when nobody wants more.
fn parse(source: impl Read, format: &Format, sender: &Sender) -> Result<(), String> {
    let source = BufReader::new(source);
    match format {
        Format::Json { pointer } => {
            let tokens: Vec<String> = pointer
                .split('/')
                .skip(1)
                .map(|token| token.replace("~1", "/").replace("~0", "~"))
                .collect();
            let seed = ItemsAt {
                path: &tokens,
                sender,
            };
            let found = seed.deserialize(&mut serde_json::Deserializer::from_reader(source));
            match found {
                Ok(Found::Items) => Ok(()),
                Ok(Found::Nothing) if pointer.is_empty() => {
                    Err("it holds neither an array nor an object".to_owned())
                }
                Ok(Found::Nothing) => Err(format!("there is no array at {pointer}")),
                Err(_) if sender.is_closed() => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        }
        Format::JsonLines => {
            for (line, number) in source.lines().zip(1..) {
                let line = line.map_err(|error| error.to_string())?;
                if line.trim().is_empty() {
                    continue;
                }
                let item = serde_json::from_str(&line)
                    .map_err(|error| format!("line {number} is not JSON: {error}"))?;
                if sender.blocking_send(Ok(item)).is_err() {
                    return Ok(());
                }
            }
            Ok(())
        }
        Format::Csv { delimiter, headers } => {
            let mut reader = csv::ReaderBuilder::new()
                .delimiter(*delimiter)
                .has_headers(headers.is_none())
                .flexible(true)
                .from_reader(source);
            let names = if let Some(names) = headers {
                names.clone()
            } else {
                let row = reader.headers().map_err(|error| error.to_string())?;
                row.iter().map(str::to_owned).collect()
            };
            for row in reader.into_records() {
                let row = row.map_err(|error| error.to_string())?;
                // As Step Functions does: what a row lacks is empty, what it has too many is dropped.
                let fields = names.iter().enumerate().map(|(at, name)| {
                    let value = row.get(at).unwrap_or_default();
                    (name.clone(), Value::String(value.to_owned()))
                });
                let item = Value::Object(fields.collect::<Map<_, _>>());
                if sender.blocking_send(Ok(item)).is_err() {
                    return Ok(());
                }
            }
            Ok(())
        }
    }
}

/// Finds the items of a JSON document, and sends each on as it is parsed.
struct ItemsAt<'a> {
    path: &'a [String],
    sender: &'a Sender,
}

enum Found {
    Items,
    Nothing,
}

impl ItemsAt<'_> {
    fn send<E: serde::de::Error>(&self, item: Value) -> Result<(), E> {
        let sent = self.sender.blocking_send(Ok(item));
        sent.map_err(|_| E::custom("nobody wants more"))
    }
}

impl<'de> DeserializeSeed<'de> for ItemsAt<'_> {
    type Value = Found;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ItemsAt<'_> {
    type Value = Found;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array or an object")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Found, A::Error> {
        if !self.path.is_empty() {
            while sequence.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(Found::Nothing);
        }
        while let Some(item) = sequence.next_element::<Value>()? {
            self.send(item)?;
        }
        Ok(Found::Items)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Found, A::Error> {
        let mut found = Found::Nothing;
        while let Some(name) = fields.next_key::<String>()? {
            match self.path.split_first() {
                None => {
                    let value: Value = fields.next_value()?;
                    self.send(json!({ "Key": name, "Value": value }))?;
                }
                Some((token, path)) if *token == name => {
                    let sender = self.sender;
                    found = fields.next_value_seed(ItemsAt { path, sender })?;
                }
                Some(_) => {
                    fields.next_value::<IgnoredAny>()?;
                }
            }
        }
        if self.path.is_empty() {
            found = Found::Items;
        }
        Ok(found)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Found, E> {
        Ok(Found::Nothing)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Found, E> {
        Ok(Found::Nothing)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Found, E> {
        Ok(Found::Nothing)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Found, E> {
        Ok(Found::Nothing)
    }

    fn visit_str<E>(self, _: &str) -> Result<Found, E> {
        Ok(Found::Nothing)
    }

    fn visit_unit<E>(self) -> Result<Found, E> {
        Ok(Found::Nothing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(format: &Format, text: &'static str) -> Vec<Result<Value, String>> {
        let (sender, mut items) = mpsc::channel(100);
        if let Err(reason) = parse(text.as_bytes(), format, &sender) {
            sender.blocking_send(Err(reason)).unwrap();
        }
        drop(sender);
        std::iter::from_fn(|| items.blocking_recv()).collect()
    }

    fn json_at(pointer: &str, text: &'static str) -> Vec<Result<Value, String>> {
        let pointer = pointer.to_owned();
        parsed(&Format::Json { pointer }, text)
    }

    fn reader(items: &[Result<Value, String>]) -> Reader {
        let (sender, receiver) = mpsc::channel(100);
        for item in items {
            sender.try_send(item.clone()).unwrap();
        }
        Reader {
            items: receiver,
            read: 0,
            version: "v".to_owned(),
        }
    }

    #[tokio::test]
    async fn what_was_read_before_is_passed_over_whole_or_not_at_all() {
        let item = |n: u32| Ok(json!(n));
        let mut whole = reader(&[item(0), item(1), item(2)]);
        assert_eq!(whole.pass_over(2, "b/o").await, Ok(()));
        assert_eq!(whole.items.recv().await, Some(item(2)));
        let mut broken = reader(&[item(0), Err("the broker is away".to_owned())]);
        let reason = "b/o, item 1: the broker is away".to_owned();
        assert_eq!(
            broken.pass_over(2, "b/o").await,
            Err(Trouble::Passing(reason))
        );
        let short = reader(&[item(0)]).pass_over(2, "b/o").await;
        let reason = "b/o has 1 items, fewer than the 2 that were read from it before".to_owned();
        assert_eq!(short, Err(Trouble::Final(reason)));
    }

    #[test]
    fn json_is_an_array_or_an_object_at_its_pointer() {
        assert_eq!(
            json_at("", "[1, {\"a\": 2}]"),
            [Ok(json!(1)), Ok(json!({"a": 2}))]
        );
        assert_eq!(
            json_at("", "{\"a\": 1}"),
            [Ok(json!({"Key": "a", "Value": 1}))]
        );
        assert_eq!(
            json_at("/b~1/c", "{\"a\": [9], \"b/\": {\"c\": [1, 2]}, \"d\": 3}"),
            [Ok(json!(1)), Ok(json!(2))]
        );
        assert_eq!(
            json_at("/b", "{\"a\": [9]}"),
            [Err("there is no array at /b".to_owned())]
        );
        assert!(json_at("", "7")[0].is_err());
        let broken = json_at("", "[1, 2");
        assert_eq!(broken.len(), 3, "what came before is told: {broken:?}");
        assert!(broken[2].as_ref().unwrap_err().contains("EOF"));
    }

    #[test]
    fn lines_of_json_name_the_line_that_is_none() {
        let items = parsed(&Format::JsonLines, "{\"a\": 1}\n\n2\nx\n");
        assert_eq!(items[..2], [Ok(json!({"a": 1})), Ok(json!(2))]);
        assert!(items[2].as_ref().unwrap_err().contains("line 4"));
    }

    #[test]
    fn rows_are_objects_by_their_headers() {
        let csv = |headers: Option<Vec<String>>, text| {
            let delimiter = b';';
            parsed(&Format::Csv { delimiter, headers }, text)
        };
        assert_eq!(
            csv(None, "a;b\n1;\"x;y\"\n2\n"),
            [
                Ok(json!({"a": "1", "b": "x;y"})),
                Ok(json!({"a": "2", "b": ""}))
            ]
        );
        let names = Some(vec!["a".to_owned()]);
        assert_eq!(csv(names, "1;2\n"), [Ok(json!({"a": "1"}))]);
    }
}
