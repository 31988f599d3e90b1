//! Definitions in their bucket: `<name>.<digest>` holds a document, `<name>` names its newest version.
//!
//! A document is immutable, so it is written before the name that points to it, and both may be
//! written twice. All coordinators watch the names.

use super::{BrokerError, journal::timestamp};
use async_nats::jetstream::kv::{Entry, Operation, Store, Watch};
use dirigent_contracts::{
    id::{DefinitionDigest, DefinitionName, DigestPrefix},
    time::Timestamp,
};
use futures::StreamExt;
use std::{
    collections::BTreeMap,
    sync::{Arc, RwLock},
    time::Duration,
};
use tokio::sync::watch;

/// How long the watch rests before it tries to reach the broker again.
const REST: Duration = Duration::from_secs(1);

/// The newest version of a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Deployed {
    pub(crate) name: DefinitionName,
    pub(crate) digest: DefinitionDigest,
    pub(crate) deployed_at: Timestamp,
    /// Orders the deployments of a name.
    revision: u64,
}

/// The definitions' bucket, with the names held in memory.
#[derive(Clone, Debug)]
pub(crate) struct DefinitionStore {
    bucket: Store,
    newest: Arc<RwLock<BTreeMap<DefinitionName, Deployed>>>,
    changes: watch::Sender<u64>,
}

impl DefinitionStore {
    /// Reads all names, and keeps watching them.
    pub(super) async fn open(bucket: Store) -> Result<Self, BrokerError> {
        let store = Self {
            bucket,
            newest: Arc::default(),
            changes: watch::Sender::new(0),
        };
        let names = store.names().await?;
        for entry in names {
            store.take_in(&entry);
        }
        // Names have no dot: documents, which are large, are not watched.
        tokio::spawn(store.clone().follow());
        Ok(store)
    }

    async fn names(&self) -> Result<Vec<Entry>, BrokerError> {
        let failed = |error: &dyn std::error::Error| {
            BrokerError::request("the definitions' names".to_owned(), error)
        };
        let info = self
            .bucket
            .stream
            .info_with_subjects(format!("$KV.{}.*", self.bucket.name))
            .await;
        let mut subjects = info.map_err(|error| failed(&error))?;
        let prefix = format!("$KV.{}.", self.bucket.name);
        let mut entries = Vec::new();
        while let Some(subject) = subjects.next().await {
            let (subject, _) = subject.map_err(|error| failed(&error))?;
            let Some(name) = subject.strip_prefix(&prefix) else {
                continue;
            };
            let entry = self
                .bucket
                .entry(name)
                .await
                .map_err(|error| failed(&error))?;
            entries.extend(entry);
        }
        Ok(entries)
    }

    async fn follow(self) {
        loop {
            match self.watch().await {
                Ok(mut entries) => {
                    while let Some(Ok(entry)) = entries.next().await {
                        self.take_in(&entry);
                    }
                }
                Err(error) => tracing::warn!(%error, "the definitions cannot be watched"),
            }
            tokio::time::sleep(REST).await;
        }
    }

    async fn watch(&self) -> Result<Watch, BrokerError> {
        let watch = self.bucket.watch_with_history("*").await;
        watch.map_err(|error| BrokerError::request("the definitions' names".to_owned(), &error))
    }

    fn take_in(&self, entry: &Entry) {
        let Ok(name) = DefinitionName::new(entry.key.as_str()) else {
            return;
        };
        let digest = (entry.operation == Operation::Put)
            .then(|| std::str::from_utf8(&entry.value).ok())
            .flatten()
            .and_then(|text| DefinitionDigest::new(text).ok());
        let deployed = digest.map(|digest| Deployed {
            name: name.clone(),
            digest,
            deployed_at: timestamp(entry.created),
            revision: entry.revision,
        });
        let Ok(mut newest) = self.newest.write() else {
            return;
        };
        let changed = match deployed {
            Some(deployed)
                if newest
                    .get(&name)
                    .is_none_or(|n| n.revision < deployed.revision) =>
            {
                newest.insert(name, deployed);
                true
            }
            Some(_) => false,
            None => newest.remove(&name).is_some(),
        };
        drop(newest);
        if changed {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// The newest version of a definition; `None` if there is no such definition.
    pub(crate) async fn latest(&self, name: &DefinitionName) -> Option<DefinitionDigest> {
        if let Some(digest) = self.known(name) {
            return Some(digest);
        }
        // It may have been deployed this very moment.
        let entry = self.bucket.entry(name.as_str()).await.ok().flatten()?;
        self.take_in(&entry);
        self.known(name)
    }

    fn known(&self, name: &DefinitionName) -> Option<DefinitionDigest> {
        Some(self.newest.read().ok()?.get(name)?.digest.clone())
    }

    /// The versions of a definition whose digests begin so.
    pub(crate) async fn versions(
        &self,
        name: &DefinitionName,
        prefix: &DigestPrefix,
    ) -> Result<Vec<DefinitionDigest>, BrokerError> {
        let failed = |error: &dyn std::error::Error| {
            BrokerError::request(format!("the versions of {name}"), error)
        };
        let keys = format!("$KV.{}.{name}.", self.bucket.name);
        let found = self.bucket.stream.info_with_subjects(format!("{keys}*"));
        let mut found = found.await.map_err(|error| failed(&error))?;
        let mut versions = Vec::new();
        while let Some(subject) = found.next().await {
            let (subject, _) = subject.map_err(|error| failed(&error))?;
            let digest = subject.strip_prefix(&keys).map(DefinitionDigest::new);
            if let Some(Ok(digest)) = digest
                && digest.as_str().starts_with(prefix.as_str())
            {
                versions.push(digest);
            }
        }
        Ok(versions)
    }

    /// The document of a version.
    pub(crate) async fn document(
        &self,
        name: &DefinitionName,
        digest: &DefinitionDigest,
    ) -> Result<Option<String>, BrokerError> {
        let key = document_key(name, digest);
        let body = self.bucket.get(key.as_str()).await;
        let body = body.map_err(|error| BrokerError::request(key.clone(), &error))?;
        body.map(|body| String::from_utf8(body.to_vec()))
            .transpose()
            .map_err(|_| BrokerError::Unreadable { what: key })
    }

    /// Stores a document and makes it the newest version of its name. False if it was that already.
    pub(crate) async fn deploy(
        &self,
        name: &DefinitionName,
        digest: &DefinitionDigest,
        document: &str,
    ) -> Result<bool, BrokerError> {
        let failed = |error: &dyn std::error::Error| {
            BrokerError::request(format!("deploying {name}"), error)
        };
        let current = self
            .bucket
            .entry(name.as_str())
            .await
            .map_err(|error| failed(&error))?;
        if let Some(current) = current {
            self.take_in(&current);
            if self.known(name).as_ref() == Some(digest) {
                return Ok(false);
            }
        }
        let document = document.to_owned().into_bytes().into();
        let put = self.bucket.put(document_key(name, digest), document).await;
        put.map_err(|error| failed(&error))?;
        let put = self
            .bucket
            .put(name.as_str(), digest.as_str().to_owned().into())
            .await;
        put.map_err(|error| failed(&error))?;
        // The caller's next start must find it, whenever the watch brings it.
        if let Ok(Some(entry)) = self.bucket.entry(name.as_str()).await {
            self.take_in(&entry);
        }
        Ok(true)
    }

    /// The newest version of each definition, by name.
    pub(crate) fn list(&self) -> Vec<Deployed> {
        self.newest
            .read()
            .map(|newest| newest.values().cloned().collect())
            .unwrap_or_default()
    }

    /// Another number whenever [`Self::list`] is another one.
    pub(crate) fn generation(&self) -> u64 {
        *self.changes.borrow()
    }

    /// Changes whenever [`Self::list`] does.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

fn document_key(name: &DefinitionName, digest: &DefinitionDigest) -> String {
    format!("{name}.{}", digest.as_str())
}
