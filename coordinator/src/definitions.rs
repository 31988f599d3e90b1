//! Compiled definitions, by name and version: read once, compiled once, shared.

use crate::{
    broker::definitions::DefinitionStore, containment::contain, engine::Program,
    router::rule::Wishes,
};
use dirigent_contracts::{
    definition::{self, Parsed},
    id::{DefinitionDigest, DefinitionName},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// How long a missing version is waited for before its saga becomes an incident.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a version that was waited for in vain is only looked for: each entry of its sagas asks for it, and
/// their whole partition would wait.
const MEMORY: Duration = Duration::from_mins(1);

/// The programs of all definitions that were asked for.
#[derive(Clone, Debug)]
pub(crate) struct Definitions {
    store: DefinitionStore,
    programs: Arc<Mutex<HashMap<DefinitionDigest, Arc<Program>>>>,
    /// Since when versions are known to be missing.
    missing: Arc<Mutex<HashMap<DefinitionDigest, Instant>>>,
}

impl Definitions {
    pub(crate) fn new(store: DefinitionStore) -> Self {
        Self {
            store,
            programs: Arc::default(),
            missing: Arc::default(),
        }
    }

    pub(crate) fn store(&self) -> &DefinitionStore {
        &self.store
    }

    /// The newest version of a definition; `None` if there is no such definition.
    pub(crate) async fn latest(&self, name: &DefinitionName) -> Option<DefinitionDigest> {
        self.store.latest(name).await
    }

    /// A program that was asked for before.
    pub(crate) fn cached(
        &self,
        _name: &DefinitionName,
        digest: &DefinitionDigest,
    ) -> Option<Arc<Program>> {
        self.programs.lock().ok()?.get(digest).map(Arc::clone)
    }

    /// The program of this version. `None` if it is missing or does not compile; a broker that is
    /// away is waited for.
    pub(crate) async fn program(
        &self,
        name: &DefinitionName,
        digest: &DefinitionDigest,
    ) -> Option<Arc<Program>> {
        if let Some(program) = self.cached(name, digest) {
            return Some(program);
        }
        let document = self.document(name, digest).await?;
        let compiled = contain(|| compile(name.as_str(), &document));
        let program = match compiled.map(|result| result.map_err(|report| report.to_string())) {
            Ok(Ok((_, program))) => Arc::new(program),
            Ok(Err(reason)) | Err(reason) => {
                tracing::error!(
                    definition = %name,
                    version = digest.short(),
                    reason,
                    "a deployed definition does not compile"
                );
                return None;
            }
        };
        if let Ok(mut programs) = self.programs.lock() {
            programs.insert(digest.clone(), Arc::clone(&program));
        }
        Some(program)
    }

    /// What this version wants of events. `None` as for [`Self::program`].
    pub(crate) async fn wishes(
        &self,
        name: &DefinitionName,
        digest: &DefinitionDigest,
    ) -> Option<Arc<Wishes>> {
        let document = self.document(name, digest).await?;
        let compiled = contain(|| compile(name.as_str(), &document));
        let (parsed, _) = compiled.ok()?.ok()?;
        Wishes::of(&parsed.definition).ok().map(Arc::new)
    }

    async fn document(&self, name: &DefinitionName, digest: &DefinitionDigest) -> Option<String> {
        let began = Instant::now();
        loop {
            match self.store.document(name, digest).await {
                Ok(Some(document)) => return Some(document),
                Ok(None) if began.elapsed() > PATIENCE || self.is_missing(digest) => {
                    self.remember_missing(digest);
                    return None;
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(definition = %name, %error, "the definition cannot be read yet");
                }
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    fn is_missing(&self, digest: &DefinitionDigest) -> bool {
        self.missing.lock().is_ok_and(|missing| {
            let since = missing.get(digest);
            since.is_some_and(|since| since.elapsed() < MEMORY)
        })
    }

    fn remember_missing(&self, digest: &DefinitionDigest) {
        if let Ok(mut missing) = self.missing.lock() {
            missing.retain(|_, since| since.elapsed() < MEMORY);
            missing.entry(digest.clone()).or_insert_with(Instant::now);
        }
    }
}

/// Parses, validates and compiles a document.
///
/// # Errors
/// The report of everything that is wrong with it.
pub fn compile(file_name: &str, document: &str) -> Result<(Parsed, Program), definition::Report> {
    let parsed = definition::parse(file_name, document)?;
    let wishes = Wishes::of(&parsed.definition).err().unwrap_or_default();
    let program = Program::compile(&parsed.definition);
    match program {
        Ok(program) if wishes.is_empty() => Ok((parsed, program)),
        result => {
            let faults = result.err().unwrap_or_default().into_iter().chain(wishes);
            Err(parsed.report(faults.map(|fault| definition::Finding {
                code: "expression",
                pointer: fault.pointer,
                offset: fault.offset,
                message: fault.message,
                help: None,
            })))
        }
    }
}
