//! A mail server that delivers nothing: each mail becomes a file. Addresses whose domain begins with
//! `bounce.` do not exist.
//!
//! It understands the commands of RFC 5321 that a client must send, which is less than what any
//! crate of a mail server would bring along.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};

/// Larger mails are refused.
const SIZE_LIMIT: usize = 1 << 20;

/// Starts it on a free port of this machine; gives its address. It ends with the runtime.
pub(crate) fn start(directory: PathBuf) -> io::Result<(String, u16)> {
    std::fs::create_dir_all(&directory)?;
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let listener = TcpListener::from_std(listener)?;
    let directory: Arc<Path> = directory.into();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let directory = Arc::clone(&directory);
            tokio::spawn(async move {
                if let Err(error) = converse(stream, &directory).await {
                    tracing::warn!(%error, "a mail was not kept");
                }
            });
        }
    });
    Ok((address.ip().to_string(), address.port()))
}

async fn converse(mut stream: TcpStream, directory: &Path) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let mut lines = BufReader::new(read).lines();
    write.write_all(b"220 sink ready\r\n").await?;
    while let Some(line) = lines.next_line().await? {
        let upper = line.to_ascii_uppercase();
        let answer = match upper.split(' ').next().unwrap_or_default() {
            "EHLO" | "HELO" | "RSET" | "NOOP" => "250 fine",
            "RCPT" if upper.contains("@BOUNCE.") => "550 no such mailbox",
            "MAIL" | "RCPT" => "250 go on",
            "DATA" => {
                write.write_all(b"354 end with a lone dot\r\n").await?;
                let mut mail = String::new();
                while let Some(line) = lines.next_line().await? {
                    if line == "." {
                        break;
                    }
                    if mail.len() < SIZE_LIMIT {
                        // A leading dot is doubled on its way (section 4.5.2).
                        mail += line.strip_prefix('.').unwrap_or(&line);
                        mail += "\n";
                    }
                }
                if mail.len() < SIZE_LIMIT {
                    tokio::fs::write(directory.join(file_name(&mail)), mail).await?;
                    "250 kept"
                } else {
                    "552 too large"
                }
            }
            "QUIT" => {
                return write.write_all(b"221 good bye\r\n").await;
            }
            _ => "502 not understood",
        };
        write.write_all(format!("{answer}\r\n").as_bytes()).await?;
    }
    Ok(())
}

/// From the Message-ID, so that a mail that is sent twice is kept once.
fn file_name(mail: &str) -> String {
    let id = mail
        .lines()
        .find_map(|line| line.strip_prefix("Message-ID:"))
        .unwrap_or("unnamed");
    let safe: String = id
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '@'))
        .collect();
    format!("{safe}.eml")
}
