//! Deploying definitions and showing them.

use super::{Api, Refusal, limits::check_definition};
use crate::{broker::assets, containment::contain, definitions::compile, router::rule::Wishes};
use dirigent_contracts::{
    api::{
        DefinitionAnswer, DefinitionRequest, DefinitionSummary, DefinitionsAnswer,
        DefinitionsRequest, DeployAnswer, DeployRequest, ErrorCode,
    },
    definition,
    id::{DefinitionDigest, DefinitionName, DigestPrefix},
};

impl Api {
    /// All that the definition needs on the broker is made before it is deployed, and this coordinator routes
    /// by its rules before it answers: a trigger event that comes right after the answer starts its saga. Only
    /// an event to which another definition listens too may be taken by another coordinator, in the moment
    /// until that has heard of the deployment.
    pub(super) async fn deploy(&self, request: DeployRequest) -> Result<DeployAnswer, Refusal> {
        let DeployRequest { name, document } = request;
        let compiled = contain(|| compile(name.as_str(), &document)).map_err(|why| {
            let message = format!("this build cannot read the definition: {why}");
            Refusal::new(ErrorCode::BadRequest, message)
        })?;
        let (parsed, _) = compiled.map_err(|report| {
            let first = report.diagnostics().first();
            let first = first.map_or_else(String::new, |one| {
                format!("line {}, column {}: {}", one.line, one.column, one.message)
            });
            let more = match report.diagnostics().len() {
                0 | 1 => String::new(),
                count => format!(" (and {} more: `dirigent check` shows all)", count - 1),
            };
            Refusal::new(
                ErrorCode::BadRequest,
                format!("the definition is not valid: {first}{more}"),
            )
        })?;
        let limits = self.broker.installation.limits();
        check_definition(&limits, &document, &parsed.definition)?;
        if let Ok(wishes) = Wishes::of(&parsed.definition) {
            self.router.check(&wishes).await?;
            self.router.prepare(&wishes).await?;
        }
        for task in parsed.definition.tasks() {
            assets::ensure_command_consumer(&self.broker.context, &task, &self.settings).await?;
        }
        let store = self.definitions.store();
        let changed = store.deploy(&name, &parsed.digest, &document).await?;
        self.router.refresh().await?;
        Ok(DeployAnswer {
            name,
            digest: parsed.digest,
            changed,
        })
    }

    pub(super) async fn definitions(
        &self,
        _: DefinitionsRequest,
    ) -> Result<DefinitionsAnswer, Refusal> {
        let mut definitions = Vec::new();
        for deployed in self.definitions.store().list() {
            let document = self
                .definitions
                .store()
                .document(&deployed.name, &deployed.digest)
                .await?;
            let parsed = document
                .and_then(|document| definition::parse(deployed.name.as_str(), &document).ok());
            let parsed = parsed.map(|parsed| parsed.definition);
            definitions.push(DefinitionSummary {
                name: deployed.name,
                digest: deployed.digest,
                deployed_at: deployed.deployed_at,
                comment: parsed
                    .as_ref()
                    .map_or_else(String::new, |it| it.comment.clone()),
                triggers: parsed.map_or_else(Vec::new, |it| {
                    it.triggers
                        .into_iter()
                        .map(|trigger| trigger.event)
                        .collect()
                }),
            });
        }
        Ok(DefinitionsAnswer { definitions })
    }

    /// The version that is meant: the only one that begins so, or the newest.
    pub(super) async fn version(
        &self,
        name: &DefinitionName,
        prefix: Option<&DigestPrefix>,
    ) -> Result<DefinitionDigest, Refusal> {
        let Some(prefix) = prefix else {
            let latest = self.definitions.latest(name).await;
            return latest.ok_or_else(|| {
                let message = format!("there is no such definition as '{name}': deploy it first");
                Refusal::not_found(message)
            });
        };
        let versions = self.definitions.store().versions(name, prefix).await?;
        match &versions[..] {
            [version] => Ok(version.clone()),
            [] => Err(Refusal::not_found(format!(
                "'{name}' has no version that begins with {prefix}"
            ))),
            many => Err(Refusal::new(
                ErrorCode::BadRequest,
                format!(
                    "{} versions of '{name}' begin with {prefix}: say more digits",
                    many.len()
                ),
            )),
        }
    }

    pub(super) async fn definition(
        &self,
        request: DefinitionRequest,
    ) -> Result<DefinitionAnswer, Refusal> {
        let DefinitionRequest { name, digest } = request;
        let unknown = || Refusal::not_found(format!("there is no such definition as '{name}'"));
        let digest = self.version(&name, digest.as_ref()).await?;
        let document = self.definitions.store().document(&name, &digest).await?;
        let document = document.ok_or_else(unknown)?;
        Ok(DefinitionAnswer {
            name,
            digest,
            document,
        })
    }
}
