//! Sending mail.

use dirigent_worker::TaskError;
use lettre::{
    Address, AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor,
    message::{Mailbox, header::ContentType},
};
use std::time::Duration;

/// How long the SMTP server may take for a mail.
const SEND_TIME: Duration = Duration::from_secs(10);

/// Sends mails through one SMTP server. Clones share its connections.
#[derive(Clone, Debug)]
pub(crate) struct Mailer(AsyncSmtpTransport<Tokio1Executor>);

impl Mailer {
    /// Plain SMTP: the relay stands beside the service, and speaks TLS to the world.
    pub(crate) fn new(host: &str, port: u16) -> Self {
        let transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
            .port(port)
            .timeout(Some(SEND_TIME));
        Self(transport.build())
    }

    /// Sends the welcome.
    ///
    /// # Errors
    /// `MailRefused`, for good, if the server does not want it; `MailUnavailable` if it may work later.
    pub(crate) async fn welcome(
        &self,
        to: &str,
        name: &str,
        message_id: &str,
    ) -> Result<(), TaskError> {
        let address: Address = to.parse()?;
        let message = Message::builder()
            .from(Mailbox::new(
                Some("Dirigent".to_owned()),
                Address::new("welcome", "dirigent.example")?,
            ))
            .to(Mailbox::new(Some(name.to_owned()), address))
            .subject("Welcome")
            .message_id(Some(message_id.to_owned()))
            .header(ContentType::TEXT_PLAIN)
            .body(format!("Welcome, {name}!\n"))?;
        match self.0.send(message).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_permanent() => {
                Err(TaskError::new("MailRefused", error.to_string()).permanent())
            }
            Err(error) => Err(TaskError::new("MailUnavailable", error.to_string())),
        }
    }
}
