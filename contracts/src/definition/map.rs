//! Map states: where the items come from, what is done with each, and how much may fail.

use super::{
    machine::Reader,
    model::{
        ItemBatcher, ItemReader, Machine, Map, Quantity, QueryLanguage, ResultWriter,
        Transformation,
    },
    node::Content,
    place::Place,
};
use indexmap::IndexMap;
use std::ops::RangeInclusive;

const WHAT: &str = "a Map state";
/// Longest label of a distributed Map, in characters: the limit of Step Functions.
const LABEL_CHARS: usize = 40;
/// The characters that a label must not have, besides white space and control characters.
const NOT_IN_LABELS: &str = "\"*?[]{}<>:;,|\\^~$#%&`/";

impl Reader {
    /// The fields of a Map.
    pub(super) fn map(&mut self, place: &Place<'_>, language: QueryLanguage) -> Map {
        let is_path = language == QueryLanguage::JsonPath;
        self.exactly_one(place, &["ItemProcessor", "Iterator"], WHAT);
        self.problems
            .at_most_one(place, &["ItemSelector", "Parameters"]);
        self.problems.at_most_one(place, &["ItemReader", "Items"]);
        let processor_place = place.get("ItemProcessor").or_else(|| place.get("Iterator"));
        let is_distributed = processor_place
            .as_ref()
            .is_some_and(|place| self.processor_config(place));
        let was_express = self.is_express;
        let processor = match &processor_place {
            Some(place) => self.processor(place, language),
            None => Machine {
                start_at: String::new(),
                states: IndexMap::new(),
            },
        };
        self.is_express = was_express;
        self.distributed_fields(place, is_distributed);
        let selector = place
            .get("ItemSelector")
            .or_else(|| place.get("Parameters").filter(|_| is_path));
        let items = place.get("Items").filter(|_| !is_path);
        Map {
            items_path: self
                .problems
                .path_field(place.get("ItemsPath").filter(|_| is_path)),
            items: items.map(|place| self.items(&place, is_distributed)),
            item_reader: place
                .get("ItemReader")
                .map(|place| self.item_reader(&place, language)),
            item_selector: selector.map(|place| self.problems.object_template(&place, language)),
            item_batcher: place
                .get("ItemBatcher")
                .map(|place| self.item_batcher(&place, language)),
            processor,
            is_distributed,
            max_concurrency: self.count(place, "MaxConcurrency", language),
            tolerated_failure_count: self.count(place, "ToleratedFailureCount", language),
            tolerated_failure_percentage: self.percentage(place, language),
            result_writer: place
                .get("ResultWriter")
                .map(|place| self.result_writer(&place, language)),
            label: place.get("Label").map(|place| self.label(&place)),
            rules: self.error_rules(place, language),
            transition: self.transition(place, WHAT),
        }
    }

    fn items(&mut self, place: &Place<'_>, is_distributed: bool) -> serde_json::Value {
        match place.node.content {
            Content::String(_) => {
                let _ = self.problems.expression(place);
                place.node.to_json()
            }
            Content::Object(_) if is_distributed => {
                self.problems.template(place, QueryLanguage::Jsonata)
            }
            Content::Array(_) => self.problems.template(place, QueryLanguage::Jsonata),
            _ => {
                self.problems.array(place);
                place.node.to_json()
            }
        }
    }

    /// `ProcessorConfig`: whether the Map is distributed.
    fn processor_config(&mut self, processor: &Place<'_>) -> bool {
        let Some(config) = processor.get("ProcessorConfig") else {
            return false;
        };
        self.problems.is_object(&config);
        self.problems
            .known_fields(&config, &["Mode", "ExecutionType"], "`ProcessorConfig`");
        let mode = config.get("Mode");
        let mode = mode.and_then(|place| self.problems.word(&place, &["INLINE", "DISTRIBUTED"]));
        let is_distributed = mode == Some("DISTRIBUTED");
        match config.get("ExecutionType") {
            Some(kind) => {
                let kind_name = self.problems.word(&kind, &["STANDARD", "EXPRESS"]);
                if !is_distributed {
                    self.problems
                        .misplaced(
                            "misplaced-field",
                            &kind,
                            "`ExecutionType` is for `Mode: DISTRIBUTED`",
                        )
                        .label("this Map is inline");
                }
                self.is_express |= kind_name == Some("EXPRESS");
            }
            None if is_distributed => {
                self.problems
                    .missing(&config, "ExecutionType", "a distributed `ProcessorConfig`");
            }
            None => {}
        }
        is_distributed
    }

    fn distributed_fields(&mut self, place: &Place<'_>, is_distributed: bool) {
        let names = ["ItemReader", "ItemBatcher", "ResultWriter", "Label"];
        for field in names
            .iter()
            .filter_map(|name| place.get(name))
            .filter(|_| !is_distributed)
        {
            let message = format!("{} is for a distributed Map", field.name());
            self.problems
                .misplaced("misplaced-field", &field, message)
                .label("this Map is inline")
                .help("set `ProcessorConfig: { Mode: DISTRIBUTED, ExecutionType: STANDARD }`");
        }
    }

    /// A count under `name`, or a path under `name` with `Path` behind it.
    fn count(
        &mut self,
        place: &Place<'_>,
        name: &str,
        language: QueryLanguage,
    ) -> Option<Quantity> {
        self.bounded(place, name, language, 0..=u64::MAX)
    }

    fn bounded(
        &mut self,
        place: &Place<'_>,
        name: &str,
        language: QueryLanguage,
        range: RangeInclusive<u64>,
    ) -> Option<Quantity> {
        let path_name = format!("{name}Path");
        self.problems.at_most_one(place, &[name, &path_name]);
        if let Some(field) = place.get(name) {
            return Some(self.problems.quantity(&field, language, range));
        }
        let field = place.get(&path_name)?;
        Some(Quantity::Path(self.problems.reference_path(&field, true)))
    }

    fn percentage(&mut self, place: &Place<'_>, language: QueryLanguage) -> Option<Quantity> {
        const NAME: &str = "ToleratedFailurePercentage";
        const PATH_NAME: &str = "ToleratedFailurePercentagePath";
        self.problems.at_most_one(place, &[NAME, PATH_NAME]);
        if let Some(field) = place.get(NAME) {
            return Some(self.problems.percentage(&field, language));
        }
        let field = place.get(PATH_NAME)?;
        Some(Quantity::Path(self.problems.reference_path(&field, true)))
    }

    fn label(&mut self, place: &Place<'_>) -> String {
        let Some(label) = self.problems.string(place) else {
            return String::new();
        };
        let wrong = label
            .chars()
            .find(|c| c.is_whitespace() || c.is_control() || NOT_IN_LABELS.contains(*c));
        if let Some(wrong) = wrong {
            self.problems
                .error(
                    "bad-label",
                    place,
                    format!("`Label` must not have the character {wrong:?}"),
                )
                .label("not a label")
                .help("a label has letters, digits, `-` and `_`");
        } else if label.is_empty() || label.chars().count() > LABEL_CHARS {
            self.problems
                .error(
                    "bad-label",
                    place,
                    format!("`Label` has 1 to {LABEL_CHARS} characters"),
                )
                .label(format!("this one has {}", label.chars().count()));
        }
        label.to_owned()
    }

    fn item_reader(&mut self, place: &Place<'_>, language: QueryLanguage) -> ItemReader {
        const READER: &str = "`ItemReader`";
        let known = ["Resource", "ReaderConfig", "Parameters", "Arguments"];
        self.problems.is_object(place);
        self.fields_of_language(
            place,
            &known,
            &["Parameters"],
            &["Arguments"],
            language,
            READER,
        );
        let resource = self.problems.required(place, "Resource", READER);
        let resource = resource.and_then(|field| self.problems.string(&field));
        let arguments = match language {
            QueryLanguage::Jsonata => place.get("Arguments"),
            QueryLanguage::JsonPath => place.get("Parameters"),
        };
        ItemReader {
            resource: resource.unwrap_or_default().to_owned(),
            config: place
                .get("ReaderConfig")
                .map(|field| self.reader_config(&field)),
            arguments: arguments.map(|field| self.problems.template(&field, language)),
        }
    }

    fn reader_config(&mut self, place: &Place<'_>) -> serde_json::Value {
        let known = [
            "InputType",
            "CSVHeaderLocation",
            "CSVHeaders",
            "CSVDelimiter",
            "MaxItems",
            "MaxItemsPath",
            "ManifestType",
            "Transformation",
            "ItemsPointer",
        ];
        self.problems.is_object(place);
        self.problems.known_fields(place, &known, "`ReaderConfig`");
        if let Some(field) = place.get("InputType") {
            self.problems
                .word(&field, &["CSV", "JSON", "JSONL", "PARQUET", "MANIFEST"]);
        }
        if let Some(field) = place.get("CSVHeaderLocation") {
            let location = self.problems.word(&field, &["FIRST_ROW", "GIVEN"]);
            if location == Some("GIVEN") && !place.has("CSVHeaders") {
                self.problems
                    .missing(place, "CSVHeaders", "`CSVHeaderLocation: GIVEN`");
            }
        }
        if let Some(field) = place.get("CSVHeaders") {
            for header in self.problems.filled_array(&field) {
                self.problems.string(&header);
            }
        }
        place.node.to_json()
    }

    fn result_writer(&mut self, place: &Place<'_>, language: QueryLanguage) -> ResultWriter {
        const WRITER: &str = "`ResultWriter`";
        let known = ["Resource", "WriterConfig", "Parameters", "Arguments"];
        self.problems.is_object(place);
        self.fields_of_language(
            place,
            &known,
            &["Parameters"],
            &["Arguments"],
            language,
            WRITER,
        );
        let config = place.get("WriterConfig");
        let mut word = |name, words: &[&'static str]| {
            let field = config.as_ref()?.get(name)?;
            self.problems.word(&field, words)
        };
        let output_type = word("OutputType", &["JSON", "JSONL"]);
        let transformation = word("Transformation", &["NONE", "COMPACT", "FLATTEN"]);
        if let Some(config) = &config {
            self.problems.is_object(config);
            let known = ["OutputType", "Transformation"];
            self.problems.known_fields(config, &known, "`WriterConfig`");
        }
        let arguments = match language {
            QueryLanguage::Jsonata => place.get("Arguments"),
            QueryLanguage::JsonPath => place.get("Parameters"),
        };
        let resource = place.get("Resource");
        if resource.is_none() && config.is_none() {
            self.problems.missing(place, "Resource", WRITER);
        }
        ResultWriter {
            resource: resource
                .and_then(|field| self.problems.string(&field))
                .map(str::to_owned),
            arguments: arguments.map(|field| self.problems.template(&field, language)),
            transformation: transformation.map(|word| match word {
                "NONE" => Transformation::None,
                "COMPACT" => Transformation::Compact,
                _ => Transformation::Flatten,
            }),
            is_lines: output_type == Some("JSONL"),
        }
    }

    fn item_batcher(&mut self, place: &Place<'_>, language: QueryLanguage) -> ItemBatcher {
        const BATCHER: &str = "`ItemBatcher`";
        const PATHS: [&str; 2] = ["MaxItemsPerBatchPath", "MaxInputBytesPerBatchPath"];
        let known = [
            "BatchInput",
            "MaxItemsPerBatch",
            "MaxInputBytesPerBatch",
            PATHS[0],
            PATHS[1],
        ];
        self.problems.is_object(place);
        self.fields_of_language(place, &known, &PATHS, &[], language, BATCHER);
        ItemBatcher {
            batch_input: place
                .get("BatchInput")
                .map(|field| self.problems.object_template(&field, language)),
            max_items: self.bounded(place, "MaxItemsPerBatch", language, 1..=u64::MAX),
            max_input_bytes: self.bounded(place, "MaxInputBytesPerBatch", language, 1..=262_144),
        }
    }
}
