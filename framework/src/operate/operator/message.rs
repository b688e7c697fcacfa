//! Builds messages from command-line arguments and prints messages.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::bus::{Options, Payload};
use crate::codec::{self, Codec};
use crate::message::{Envelope, MediaType};
use crate::operate::cli::duration;

#[derive(Args)]
pub(super) struct MessageArgs {
    /// The payload as JSON
    #[arg(long, group = "payload")]
    json: Option<String>,
    /// The payload as text
    #[arg(long, group = "payload")]
    text: Option<String>,
    /// The payload from a file
    #[arg(long, group = "payload")]
    pub(super) file: Option<PathBuf>,
    /// The media type of the file
    #[arg(long, value_name = "TYPE", default_value = "application/json")]
    media_type: String,
    /// A header, name=value; may be repeated
    #[arg(long = "header", value_name = "NAME=VALUE")]
    pub(super) headers: Vec<String>,
    /// The message's id
    #[arg(long)]
    pub(super) id: Option<String>,
    /// How long to wait
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "30s")]
    timeout: Duration,
    /// How long the broker keeps it before it is routed
    #[arg(long, value_name = "TIME", value_parser = duration)]
    delay: Option<Duration>,
}

impl MessageArgs {
    pub(super) fn payload(&self) -> Result<Payload, String> {
        if let Some(json) = &self.json {
            let value: serde_json::Value =
                serde_json::from_str(json).map_err(|error| format!("--json: not JSON: {error}"))?;
            return Ok(Payload::json(&value));
        }
        if let Some(text) = &self.text {
            return Ok(Payload::text(text.clone()));
        }
        if let Some(file) = &self.file {
            let bytes = std::fs::read(file).map_err(|error| format!("--file {}: {error}", file.display()))?;
            return Ok(Payload::bytes(bytes, MediaType::new(self.media_type.clone())));
        }
        Ok(Payload::json(&()))
    }

    pub(super) fn options(&self) -> Result<Options, String> {
        let mut options = Options::default().timeout(self.timeout);
        for header in &self.headers {
            let (name, value) =
                header.split_once('=').ok_or_else(|| format!("--header {header:?}: write name=value"))?;
            options = options.header(name, value);
        }
        if let Some(id) = &self.id {
            options = options.id(id.as_str());
        }
        if let Some(delay) = self.delay {
            options = options.delay(delay);
        }
        Ok(options)
    }
}

/// A payload for display: JSON and MessagePack as JSON, text as it is, anything else by its size.
pub(in crate::operate) fn shown(envelope: &Envelope) -> String {
    let limits = codec::Limits::default();
    match Codec::for_media_type(&envelope.media_type) {
        Some(Codec::Json | Codec::Msgpack) => codec::decode_content::<serde_json::Value>(envelope, &limits)
            .map_or_else(|error| format!("({error})"), |value| value.to_string()),
        Some(Codec::Text) => codec::content(envelope, &limits)
            .map_or_else(|error| format!("({error})"), |text| String::from_utf8_lossy(&text).into_owned()),
        _ => format!("({} bytes of {})", envelope.payload.len(), envelope.media_type),
    }
}
