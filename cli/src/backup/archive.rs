//! The archive: a tar file with the data of each part in pieces, and the manifest behind them.
//!
//! It bears its name only when it is whole. Pieces keep the memory small, and let the file be written
//! and read in one go.

use super::manifest::{FORMAT, Manifest, Part};
use crate::trouble::Trouble;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, BufWriter, Read},
    path::{Path, PathBuf},
};
use tar::{Builder, EntryType, Header};
use tempfile::NamedTempFile;

const MANIFEST: &str = "manifest.json";
/// Size of a piece.
const PIECE: usize = 8 * 1024 * 1024;

/// An archive that is being written.
pub(super) struct Writer {
    path: PathBuf,
    builder: Builder<BufWriter<NamedTempFile>>,
}

/// The data of one part that is being written.
pub(super) struct PartWriter<'a> {
    archive: &'a mut Writer,
    name: String,
    piece: Vec<u8>,
    pieces: u32,
    bytes: u64,
    digest: Sha256,
}

/// A whole archive, whose data is what the manifest says.
#[derive(Debug)]
pub(super) struct Archive {
    path: PathBuf,
    pub(super) manifest: Manifest,
}

impl Writer {
    /// Begins an archive that will be called `path`; what stands there now is not touched.
    pub(super) fn create(path: &Path) -> Result<Self, Trouble> {
        let fault = |source| not_written(path, source);
        if path.try_exists().map_err(fault)? {
            return Err(Trouble::FileExists {
                path: path.to_owned(),
            });
        }
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let file = tempfile::Builder::new()
            .prefix(".dirigent-backup-")
            .tempfile_in(directory)
            .map_err(fault)?;
        Ok(Self {
            path: path.to_owned(),
            builder: Builder::new(BufWriter::new(file)),
        })
    }

    /// Begins a part.
    pub(super) fn part(&mut self, name: &str) -> PartWriter<'_> {
        PartWriter {
            archive: self,
            name: name.to_owned(),
            piece: Vec::new(),
            pieces: 0,
            bytes: 0,
            digest: Sha256::new(),
        }
    }

    fn append(&mut self, name: &str, body: &[u8]) -> Result<(), Trouble> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_size(body.len() as u64);
        header.set_mode(0o600);
        let appended = self.builder.append_data(&mut header, name, body);
        appended.map_err(|source| not_written(&self.path, source))
    }

    /// Writes the manifest, and gives the archive its name once everything is on the disk.
    pub(super) fn finish(mut self, manifest: &Manifest) -> Result<(), Trouble> {
        let body = serde_json::to_vec_pretty(manifest)
            .map_err(|error| not_written(&self.path, error.into()))?;
        self.append(MANIFEST, &body)?;
        let path = self.path;
        let named = || {
            let file = self.builder.into_inner()?.into_inner()?;
            file.as_file().sync_all()?;
            file.persist_noclobber(&path)?;
            Ok(())
        };
        named().map_err(|source: io::Error| not_written(&path, source))
    }
}

impl PartWriter<'_> {
    pub(super) fn write(&mut self, data: &[u8]) -> Result<(), Trouble> {
        self.digest.update(data);
        self.bytes += data.len() as u64;
        self.piece.extend_from_slice(data);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Trouble> {
        let name = format!("{}/{:06}", self.name, self.pieces);
        self.pieces += 1;
        let piece = std::mem::take(&mut self.piece);
        self.archive.append(&name, &piece)
    }

    /// Ends the part. Gives its size and its digest.
    pub(super) fn finish(mut self) -> Result<(u64, String), Trouble> {
        if !self.piece.is_empty() {
            self.flush()?;
        }
        Ok((self.bytes, hexadecimal(&self.digest)))
    }
}

impl Archive {
    /// Reads an archive to its end and compares it with its manifest.
    pub(super) fn open(path: &Path) -> Result<Self, Trouble> {
        let unfit = |reason: String| Trouble::NoArchive {
            path: path.to_owned(),
            reason,
        };
        let mut found: BTreeMap<String, (u64, Sha256)> = BTreeMap::new();
        let mut manifest = None;
        let mut archive = tar::Archive::new(BufReader::new(open(path)?));
        let entries = archive
            .entries()
            .map_err(|error| unfit(error.to_string()))?;
        for entry in entries {
            let mut entry = entry.map_err(|error| unfit(error.to_string()))?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let mut body = Vec::new();
            let read = entry.read_to_end(&mut body);
            read.map_err(|error| unfit(error.to_string()))?;
            if name == MANIFEST {
                manifest = Some(body);
            } else if let Some((part, _)) = name.rsplit_once('/') {
                let (bytes, digest) = found.entry(part.to_owned()).or_default();
                *bytes += body.len() as u64;
                digest.update(&body);
            }
        }
        let manifest = manifest.ok_or_else(|| unfit("it is not whole, or no backup".to_owned()))?;
        let format = serde_json::from_slice::<serde_json::Value>(&manifest)
            .map_err(|error| unfit(format!("its manifest: {error}")))?;
        if format["format"] != FORMAT {
            return Err(unfit(format!(
                "it has format {}, and this build reads {FORMAT}",
                format["format"]
            )));
        }
        let manifest: Manifest = serde_json::from_slice(&manifest)
            .map_err(|error| unfit(format!("its manifest: {error}")))?;
        for part in &manifest.parts {
            let (bytes, digest) = found.remove(&part.data).unwrap_or_default();
            if (bytes, &hexadecimal(&digest)) != (part.bytes, &part.sha256) {
                return Err(unfit(format!("the data of {} is damaged", part.stream)));
            }
        }
        Ok(Self {
            path: path.to_owned(),
            manifest,
        })
    }

    /// Hands the data of a part to `take`, piece by piece.
    pub(super) async fn read(
        &self,
        part: &Part,
        mut take: impl AsyncFnMut(Vec<u8>) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        let fault = |source| Trouble::File {
            path: self.path.clone(),
            source,
        };
        let mut archive = tar::Archive::new(BufReader::new(open(&self.path)?));
        for entry in archive.entries_with_seek().map_err(fault)? {
            let mut entry = entry.map_err(fault)?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            if name.rsplit_once('/').map(|(stream, _)| stream) == Some(&part.data) {
                let mut piece = Vec::new();
                entry.read_to_end(&mut piece).map_err(fault)?;
                take(piece).await?;
            }
        }
        Ok(())
    }
}

fn open(path: &Path) -> Result<File, Trouble> {
    File::open(path).map_err(|source| Trouble::File {
        path: path.to_owned(),
        source,
    })
}

fn not_written(path: &Path, source: io::Error) -> Trouble {
    Trouble::FileNotWritten {
        path: path.to_owned(),
        source,
    }
}

fn hexadecimal(digest: &Sha256) -> String {
    let digest = digest.clone().finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::manifest::Form, *};
    use dirigent_contracts::time::Timestamp;
    use serde_json::Value;

    fn archive(path: &Path, data: &[&[u8]]) {
        let mut writer = Writer::create(path).unwrap();
        let mut parts = Vec::new();
        for (number, data) in data.iter().enumerate() {
            let stream = format!("S{number}");
            let mut part = writer.part(&stream);
            for piece in data.chunks(100_000) {
                part.write(piece).unwrap();
            }
            let (bytes, sha256) = part.finish().unwrap();
            parts.push(Part {
                data: stream.clone(),
                stream,
                form: Form::Stream,
                config: Value::Null,
                state: Value::Null,
                consumers: Vec::new(),
                cut: None,
                bytes,
                sha256,
            });
        }
        let manifest = Manifest {
            format: FORMAT,
            dirigent: String::new(),
            server: String::new(),
            began: Timestamp(0),
            ended: Timestamp(0),
            parts,
        };
        writer.finish(&manifest).unwrap();
    }

    #[tokio::test]
    async fn what_was_written_is_read_piece_by_piece() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let large: Vec<u8> = (0..20_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
        archive(&path, &[b"", b"small", &large]);
        let archive = Archive::open(&path).unwrap();
        for (part, expected) in archive
            .manifest
            .parts
            .iter()
            .zip([b"", &b"small"[..], &large])
        {
            let mut read = Vec::new();
            let take = async |piece: Vec<u8>| {
                read.extend(piece);
                Ok(())
            };
            archive.read(part, take).await.unwrap();
            assert!(read == expected, "{}", part.stream);
        }
    }

    #[test]
    fn an_archive_that_is_cut_short_or_damaged_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        archive(&path, &[&[7; 3_000], &[8; 3_000]]);
        let whole = std::fs::read(&path).unwrap();
        let refused = |bytes: &[u8]| {
            let path = directory.path().join("b");
            std::fs::write(&path, bytes).unwrap();
            Archive::open(&path).unwrap_err().to_string()
        };
        for length in (0..whole.len() - 1_024).step_by(509) {
            refused(&whole[..length]);
        }
        let place = whole.iter().position(|byte| *byte == 8).unwrap();
        let mut damaged = whole.clone();
        damaged[place] = 9;
        assert!(refused(&damaged).contains("S1 is damaged"));
    }

    #[test]
    fn nothing_is_overwritten_and_nothing_half_written_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        drop(Writer::create(&path).unwrap());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(
            Writer::create(&path),
            Err(Trouble::FileExists { .. })
        ));
    }
}
