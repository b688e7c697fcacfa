//! Properties of every command line of the `postrider` program, without sending anything.

use clap::CommandFactory as _;
use proptest::prelude::*;

use super::*;
use crate::message::Envelope;
use crate::operate::cli::property_tests::{arguments, line};

const WORDS: [&str; 54] = [
    "send",
    "publish",
    "request",
    "channel",
    "tap",
    "ping",
    "wait",
    "dead",
    "store",
    "outbox",
    "status",
    "drop",
    "domain",
    "list",
    "show",
    "replay",
    "edit",
    "delete",
    "export",
    "release",
    "invoice",
    "invoice.create",
    "--to",
    "--text",
    "--file",
    "--media-type",
    "--header",
    "--id",
    "--timeout",
    "--delay",
    "--messages",
    "--all",
    "--rate",
    "--canary",
    "--service",
    "--queue",
    "--key",
    "--error",
    "--newer-than",
    "--older-than",
    "--count",
    "actor",
    "pause",
    "resume",
    "restart",
    "doctor",
    "topology",
    "migrate",
    "--instance",
    "--management",
    "--wait",
    "--json",
    "--guarantee",
    "--ordered",
];

fn message_of(command: Command) -> Option<MessageArgs> {
    match command {
        Command::AtBroker(
            AtBroker::Send { message, .. }
            | AtBroker::Publish { message, .. }
            | AtBroker::Request { message, .. }
            | AtBroker::Channel { message, .. },
        ) => Some(message),
        _ => None,
    }
}

/// Builds the message of a command line, without sending it.
fn composed(message: &MessageArgs) -> Result<(), String> {
    let identity = Identity { media_type: MediaType::JSON, ..Identity::plain("operator", "operator") };
    let options = message.options()?;
    let address = Address { kind: Kind::Command, key: "invoice.create", service: None };
    let outgoing = identity.keyed(&address, message.payload()?, options, Duration::from_secs(30));
    outgoing.map(|_| ()).map_err(|error| error.to_string())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn any_command_line_of_the_operator_is_read_or_answered(words in arguments(&WORDS)) {
        match Cli::try_parse_from(line(&words)) {
            Ok(cli) => {
                let message = message_of(cli.command).filter(|message| message.file.is_none());
                let refused = message.and_then(|message| composed(&message).err());
                prop_assert!(refused.is_none_or(|problem| !problem.is_empty()));
            }
            Err(answer) => prop_assert!(!answer.to_string().is_empty()),
        }
    }

    #[test]
    fn any_message_of_the_command_line_is_sent_as_it_was_said_or_refused(
        payload in prop_oneof![
            "\\PC{0,20}".prop_map(|text| ["--text".to_owned(), text]),
            "[\\[\\]{}\":,0-9a-z ]{0,12}".prop_map(|json| ["--json".to_owned(), json]),
        ],
        headers in prop::collection::vec("\\PC{0,6}=?\\PC{0,6}", 0..3),
        id in prop::option::of("\\PC{0,10}"), timeout in 0..u64::MAX, delay in prop::option::of(0..u64::MAX),
    ) {
        let mut words = vec!["send".to_owned(), "invoice.create".into(), format!("{}={}", payload[0], payload[1])];
        words.extend(headers.iter().map(|header| format!("--header={header}")));
        words.extend(id.iter().map(|id| format!("--id={id}")));
        words.push(format!("--timeout={timeout}ms"));
        words.extend(delay.iter().map(|delay| format!("--delay={delay}ms")));
        match Cli::try_parse_from(line(&words)) {
            Ok(cli) => {
                let message = message_of(cli.command).unwrap();
                prop_assert!(headers.iter().eq(&message.headers) && id == message.id);
                match message.payload() {
                    Ok(sent) if payload[0] == "--text" => {
                        let bytes = sent.encoded.unwrap();
                        prop_assert_eq!(&bytes[..], payload[1].as_bytes());
                    }
                    Ok(sent) => {
                        let said: serde_json::Value = serde_json::from_str(&payload[1]).unwrap();
                        prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&sent.encoded.unwrap()).unwrap(), said);
                    }
                    Err(problem) => prop_assert!(problem.starts_with("--json: not JSON")),
                }
                if let Err(problem) = message.options() {
                    prop_assert!(problem.contains("write name=value") && headers.iter().any(|header| !header.contains('=')));
                }
                let _ = composed(&message);
            }
            Err(answer) => {
                prop_assert!(timeout == 0 || delay == Some(0), "{}", answer);
            }
        }
    }

    #[test]
    fn any_payload_is_shown_to_people(bytes in prop::collection::vec(any::<u8>(), 0..60), media_type in "(application/json|application/msgpack|text/plain|\\PC{0,8})") {
        let key = crate::message::Key::from_wire("a.b");
        let envelope = Envelope::new(Kind::Event, key, MediaType::new(media_type), bytes.into());
        let _ = shown(&envelope);
    }
}

#[test]
fn the_command_line_of_the_operator_is_put_together_right() {
    Cli::command().debug_assert();
}
