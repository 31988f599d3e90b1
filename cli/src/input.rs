//! JSON that a person gives on the command line: inline, from a file, or from stdin.

use crate::trouble::Trouble;
use serde_json::Value;
use std::{
    fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

/// Where the JSON comes from. Inline JSON is parsed with the command line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    /// The value itself.
    Inline(Value),
    /// `@FILE`.
    File(PathBuf),
    /// `-`.
    Stdin,
}

impl FromStr for Json {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "-" => Ok(Self::Stdin),
            _ => match text.strip_prefix('@') {
                Some("") => Err("@ needs the name of a file: @input.json".into()),
                Some(path) => Ok(Self::File(path.into())),
                None => serde_json::from_str(text)
                    .map(Self::Inline)
                    .map_err(|error| {
                        format!(
                            "not JSON: {error}; a text needs quotes of its own: '\"anna\"'; @FILE \
                         reads a file, - reads stdin"
                        )
                    }),
            },
        }
    }
}

impl Json {
    /// Reads the value.
    pub(crate) fn read(self) -> Result<Value, Trouble> {
        let parse = |origin: String, text: &str| {
            serde_json::from_str(text).map_err(|error| Trouble::NotJson {
                origin,
                reason: error.to_string(),
            })
        };
        match self {
            Self::Inline(value) => Ok(value),
            Self::File(path) => parse(path.display().to_string(), &text(&path)?),
            Self::Stdin => {
                let text = io::read_to_string(io::stdin()).map_err(|source| Trouble::File {
                    path: "stdin".into(),
                    source,
                })?;
                parse("stdin".into(), &text)
            }
        }
    }
}

/// Reads a text file.
pub(crate) fn text(path: &Path) -> Result<String, Trouble> {
    fs::read_to_string(path).map_err(|source| Trouble::File {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::io::Write;

    #[test]
    fn json_is_given_inline_by_file_or_on_stdin() {
        assert_eq!("{\"a\": 1}".parse(), Ok(Json::Inline(json!({"a": 1}))));
        assert_eq!(
            "@some/file.json".parse(),
            Ok(Json::File("some/file.json".into()))
        );
        assert_eq!("-".parse(), Ok(Json::Stdin));
        assert_eq!("-1".parse(), Ok(Json::Inline(json!(-1))));
    }

    #[test]
    fn what_is_not_json_is_refused_with_advice() {
        for text in ["anna", "{a: 1}", "", "1 2"] {
            let error = text.parse::<Json>().unwrap_err();
            assert!(error.contains("quotes of its own"), "{text:?}: {error}");
        }
        assert!("@".parse::<Json>().unwrap_err().contains("name of a file"));
    }

    #[test]
    fn a_file_is_read_and_named_when_it_is_wrong() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"{\"a\": [1, 2]}").unwrap();
        let read = |path: &Path| Json::File(path.to_owned()).read();
        assert_eq!(read(file.path()).unwrap(), json!({"a": [1, 2]}));
        file.write_all(b"}").unwrap();
        let error = read(file.path()).unwrap_err().to_string();
        assert!(
            error.starts_with(&file.path().display().to_string()),
            "{error}"
        );
        assert!(matches!(
            read(Path::new("/no/such/file")),
            Err(Trouble::File { .. })
        ));
    }
}
