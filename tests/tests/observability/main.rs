//! What is in the box for operators agrees with itself: the tables in `docs/metrics.md`, the alert rules
//! and dashboards in `deploy/`, their runbooks in `docs/operations.md`, and `compose.yaml`.

use anyhow::{Context as _, bail, ensure};
use dirigent_contracts::metric::{Kind, Metric};
use promql_parser::parser::{self, Expr, LabelModifier, VectorSelector};
use saphyr::{LoadableYamlNode as _, Yaml};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Labels that Prometheus gives to whatever it scrapes.
const OF_TARGETS: [&str; 2] = ["instance", "job"];

/// What others than we emit, with the labels that we use: Prometheus itself, and NATS's exporter.
const FOREIGN: [(&str, &[&str]); 5] = [
    ("up", &[]),
    ("jetstream_stream_total_messages", &["stream_name"]),
    ("jetstream_stream_total_bytes", &["stream_name"]),
    ("gnatsd_varz_connections", &[]),
    ("gnatsd_varz_slow_consumers", &[]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: impl AsRef<Path>) -> anyhow::Result<String> {
    let path = root().join(path);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

fn yaml(text: &str) -> anyhow::Result<Yaml<'_>> {
    let documents = Yaml::load_from_str(text)?;
    documents.into_iter().next().context("an empty document")
}

fn list<'a>(node: &'a Yaml<'a>, name: &str) -> &'a [Yaml<'a>] {
    let found = node
        .as_mapping_get(name)
        .and_then(|node| node.as_sequence());
    found.map_or(&[], |items| items.as_slice())
}

fn text<'a>(node: &'a Yaml<'a>, name: &str) -> anyhow::Result<&'a str> {
    let found = node.as_mapping_get(name).and_then(|node| node.as_str());
    found.with_context(|| format!("no {name} in {node:?}"))
}

fn metrics() -> impl Iterator<Item = &'static Metric> {
    let coordinators = dirigent_coordinator::metrics::REFERENCE;
    coordinators
        .iter()
        .chain(dirigent_worker::metrics::REFERENCE)
}

/// All series that there can be: their names, as Prometheus has them, and their labels.
fn series() -> BTreeMap<String, BTreeSet<&'static str>> {
    let mut series: BTreeMap<String, BTreeSet<&str>> = FOREIGN
        .iter()
        .map(|(name, labels)| ((*name).to_owned(), labels.iter().copied().collect()))
        .collect();
    for metric in metrics() {
        let labels: BTreeSet<&str> = metric.labels.iter().copied().collect();
        let name = metric.prometheus();
        if let Kind::Histogram(_) = metric.kind {
            let buckets = labels.iter().copied().chain(["le"]).collect();
            series.insert(format!("{name}_bucket"), buckets);
            series.insert(format!("{name}_sum"), labels.clone());
            series.insert(format!("{name}_count"), labels);
        } else {
            series.insert(name, labels);
        }
    }
    series
}

/// Checks that a query parses, asks only for series that there are, and only for labels that they have.
fn check_query(query: &str) -> anyhow::Result<()> {
    let query = query.replace("$__rate_interval", "5m");
    let expression = parser::parse(&query).map_err(|error| anyhow::anyhow!("{query}: {error}"))?;
    let known = series();
    let mut found = Found::default();
    found.collect(&expression)?;
    let has_label = |selector: &VectorSelector, label: &str| {
        let name = selector.name.as_deref().unwrap_or_default();
        let has = known.get(name);
        let has = has.with_context(|| format!("nobody emits {name} in {query}"))?;
        let is_known = OF_TARGETS.contains(&label) || has.contains(label);
        ensure!(is_known, "{name} has no label {label} in {query}");
        Ok(())
    };
    ensure!(!found.selectors.is_empty(), "{query} asks for nothing");
    for selector in &found.selectors {
        for matcher in &selector.matchers.matchers {
            has_label(selector, &matcher.name)?;
        }
        // Of all, also of those without a label: that it is known.
        has_label(selector, OF_TARGETS[0])?;
    }
    for (label, selector) in &found.grouped {
        has_label(selector, label)?;
    }
    Ok(())
}

/// What a query asks for.
#[derive(Default)]
struct Found<'a> {
    selectors: Vec<&'a VectorSelector>,
    /// The labels that it groups by, with what is grouped.
    grouped: Vec<(&'a str, &'a VectorSelector)>,
}

impl<'a> Found<'a> {
    fn collect(&mut self, expression: &'a Expr) -> anyhow::Result<()> {
        match expression {
            Expr::Aggregate(aggregate) => {
                let before = self.selectors.len();
                self.collect(&aggregate.expr)?;
                if let Some(LabelModifier::Include(labels)) = &aggregate.modifier {
                    for selector in &self.selectors[before..] {
                        let labels = labels
                            .labels
                            .iter()
                            .map(|label| (label.as_str(), *selector));
                        self.grouped.extend(labels);
                    }
                }
            }
            Expr::Unary(unary) => self.collect(&unary.expr)?,
            Expr::Binary(binary) => {
                self.collect(&binary.lhs)?;
                self.collect(&binary.rhs)?;
            }
            Expr::Paren(paren) => self.collect(&paren.expr)?,
            Expr::Subquery(subquery) => self.collect(&subquery.expr)?,
            Expr::Call(call) => {
                for argument in &call.args.args {
                    self.collect(argument)?;
                }
            }
            Expr::VectorSelector(selector) => self.selectors.push(selector),
            Expr::MatrixSelector(matrix) => self.selectors.push(&matrix.vs),
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) => {}
            Expr::Extension(_) => bail!("an extension that this test does not know"),
        }
        Ok(())
    }
}

#[test]
fn the_tables_of_the_documentation_are_the_metrics_of_the_code() -> anyhow::Result<()> {
    let documented = read("docs/metrics.md")?;
    let documented: Vec<&str> = documented
        .lines()
        .filter(|line| line.starts_with("| `dirigent."))
        .collect();
    let emitted: Vec<String> = metrics()
        .map(|metric| {
            let Metric {
                name,
                kind,
                unit,
                labels,
                help,
            } = metric;
            let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
            let (kind, labels) = (kind.as_str(), labels.join(", "));
            format!("| `{name}` | {kind} | {unit} | {labels} | {help} |")
        })
        .collect();
    assert_eq!(documented, emitted);
    Ok(())
}

#[test]
fn every_alert_is_about_what_is_emitted_and_has_a_runbook() -> anyhow::Result<()> {
    let runbooks = read("docs/operations.md")?;
    let anchors: BTreeSet<String> = runbooks
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .map(|heading| format!("#{}", heading.to_lowercase()))
        .collect();
    let rules = read("deploy/prometheus/rules.yml")?;
    let mut alerts = BTreeSet::new();
    for rule in list(&yaml(&rules)?, "groups")
        .iter()
        .flat_map(|group| list(group, "rules"))
    {
        let name = text(rule, "alert")?;
        check_query(text(rule, "expr")?).with_context(|| name.to_owned())?;
        let annotations = rule
            .as_mapping_get("annotations")
            .context("no annotations")?;
        let runbook = text(annotations, "runbook_url")?;
        let (page, _) = runbook
            .split_once('#')
            .context("a runbook without an anchor")?;
        ensure!(page.ends_with("/docs/operations.md"), "{runbook}");
        ensure!(
            runbook.ends_with(&format!("#{}", name.to_lowercase())),
            "{name}: {runbook}"
        );
        alerts.insert(format!("#{}", name.to_lowercase()));
    }
    assert_eq!(
        alerts, anchors,
        "each alert has a paragraph, and each paragraph an alert"
    );
    Ok(())
}

#[test]
fn every_panel_of_the_dashboards_shows_what_is_emitted() -> anyhow::Result<()> {
    let mut queries = 0;
    for file in fs::read_dir(root().join("deploy/grafana/dashboards"))? {
        let path = file?.path();
        let dashboard: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
        let variables = dashboard["templating"]["list"]
            .as_array()
            .context("no list")?;
        for variable in variables {
            // label_values(METRIC, LABEL)
            let query = variable["query"].as_str().context("no query")?;
            let asked = query
                .strip_prefix("label_values(")
                .and_then(|rest| rest.strip_suffix(')'));
            let (metric, label) = asked
                .and_then(|it| it.split_once(", "))
                .context("no label")?;
            check_query(&format!("sum by ({label}) ({metric})"))?;
        }
        for panel in dashboard["panels"].as_array().context("no panels")? {
            for target in panel["targets"].as_array().context("no targets")? {
                let query = target["expr"].as_str().context("no query")?;
                check_query(query)
                    .with_context(|| format!("{}: {}", path.display(), panel["title"]))?;
                queries += 1;
            }
        }
    }
    ensure!(queries > 30, "only {queries} queries");
    Ok(())
}

#[test]
fn a_query_for_what_nobody_emits_is_found() {
    assert!(check_query("sum(dirigent_sagas_live)").is_ok());
    assert!(check_query("sum(dirigent_sagas_alive)").is_err());
    assert!(check_query("sum by (key) (dirigent_sagas_live)").is_err());
    assert!(check_query(r#"dirigent_sagas_live{key="k"}"#).is_err());
    assert!(check_query("sum(rate(dirigent_sagas_live)").is_err());
}

#[test]
fn compose_mounts_what_is_there_and_prometheus_scrapes_where_the_coordinator_listens()
-> anyhow::Result<()> {
    let compose = read("compose.yaml")?;
    let compose = yaml(&compose)?;
    let services = compose.as_mapping_get("services").context("no services")?;
    let mut mounted = 0;
    for (_, service) in services.as_mapping().context("no services")? {
        for volume in list(service, "volumes") {
            let volume = volume.as_str().context("a volume that is no text")?;
            let source = volume.split(':').next().unwrap_or_default();
            if source.starts_with('.') {
                ensure!(root().join(source).exists(), "{source} is not there");
                mounted += 1;
            }
        }
    }
    ensure!(mounted >= 4, "only {mounted} mounts");
    let coordinator = services
        .as_mapping_get("coordinator")
        .context("no coordinator")?;
    let command = list(coordinator, "command");
    let words: Vec<_> = command.iter().filter_map(|word| word.as_str()).collect();
    let at = words.iter().position(|word| *word == "--metrics-listen");
    let listens = at
        .and_then(|at| words.get(at + 1))
        .context("no --metrics-listen")?;
    let port = listens.rsplit(':').next().unwrap_or_default();
    let scraped = read("deploy/prometheus/prometheus.yml")?;
    let scraped = yaml(&scraped)?;
    let jobs = list(&scraped, "scrape_configs").iter();
    let ports: Vec<String> = jobs
        .flat_map(|job| list(job, "dns_sd_configs"))
        .filter_map(|target| target.as_mapping_get("port").and_then(Yaml::as_integer))
        .map(|port| port.to_string())
        .collect();
    assert_eq!(ports, [port]);
    for provisioned in ["datasources/datasources.yml", "dashboards/dashboards.yml"] {
        let text = read(Path::new("deploy/grafana/provisioning").join(provisioned))?;
        let version = yaml(&text)?
            .as_mapping_get("apiVersion")
            .and_then(Yaml::as_integer);
        assert_eq!(version, Some(1), "{provisioned}");
    }
    Ok(())
}
