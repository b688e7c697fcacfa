//! Translates the client's errors to [`BrokerError`].

use std::time::Duration;

use lapin::{Error, ErrorKind};

use crate::broker::BrokerError;

/// The AMQP reply code, if the broker sent one.
pub(super) fn code(error: &Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
}

fn said(error: &Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(error) => error.get_message().as_str().trim_end_matches('.').to_owned(),
        ErrorKind::IOError(error) => error.to_string(),
        ErrorKind::ParsingError(_) => {
            "what answers there does not speak AMQP 0-9-1; 5672 is the usual port, 5671 with amqps://, 15672 is the management API's".into()
        }
        ErrorKind::MissingHeartbeatError => "no heartbeat came".into(),
        ErrorKind::InvalidConnectionState(_) | ErrorKind::InvalidChannelState(..) => "the connection is closed".into(),
        _ => error.to_string(),
    }
}

/// Translates an error while connecting.
pub(super) fn connecting(error: &Error, address: &str) -> BrokerError {
    let (address, reason) = (address.to_owned(), said(error));
    match code(error) {
        // Temporary: other connections may end.
        Some(530) if reason.ends_with("is reached") => BrokerError::Full { address, reason },
        Some(403 | 530) => BrokerError::Refused { address, reason },
        _ => match about_tls(&reason) {
            Some(reason) => BrokerError::Untrusted { address, reason },
            // A port that wants TLS aborts or resets a plain connection.
            None if ends_at_once(&reason) && address.starts_with("amqp://") => {
                let reason = format!("{reason}; if the port wants TLS, write amqps://");
                BrokerError::Unreachable { address, reason }
            }
            None => BrokerError::Unreachable { address, reason },
        },
    }
}

/// Whether the peer ended the connection before it said anything.
fn ends_at_once(reason: &str) -> bool {
    ["connection aborted", "onnection reset", "roken pipe"].iter().any(|words| reason.contains(words))
}

/// The error for several nodes when none could be connected to. It is permanent only if the error of every node is.
pub(super) fn of_all(mut errors: Vec<BrokerError>) -> BrokerError {
    if errors.is_empty() {
        return BrokerError::Stopped;
    }
    let first = errors.iter().position(|error| !error.is_permanent()).unwrap_or(0);
    let mut first = errors.remove(first);
    if let BrokerError::Refused { address, reason }
    | BrokerError::Full { address, reason }
    | BrokerError::Unreachable { address, reason } = &mut first
    {
        for other in errors {
            match other {
                BrokerError::Refused { address: also, reason: same } if same == *reason => {
                    *address = format!("{address}, {also}");
                }
                other => *reason = format!("{reason} (and {other})"),
            }
        }
    }
    first
}

/// The TLS library's reason, with advice. The library names its reasons only as text.
fn about_tls(reason: &str) -> Option<String> {
    let advice = [
        (
            "UnknownIssuer",
            "nobody who is trusted has signed its certificate; if the authority is your own, name the file with the authority's certificate in POSTRIDER_BROKER_CA",
        ),
        (
            "BadSignature",
            "an authority of the same name as the trusted one has signed its certificate, with another key; put the authority's present certificate into POSTRIDER_BROKER_CA",
        ),
        ("CaUsedAsEndEntity", "its certificate is that of an authority; give the broker one of its own, signed by it"),
        (
            "not valid for name",
            "its certificate is for other names; write one of those as the host in POSTRIDER_BROKER",
        ),
        ("NotValidForName", "its certificate is for other names; write one of those as the host in POSTRIDER_BROKER"),
        ("certificate expired", "its certificate is too old: renew it, or set this machine's clock right"),
        ("Expired", "its certificate is too old: renew it, or set this machine's clock right"),
        ("not valid yet", "its certificate is not valid yet: set this machine's clock right"),
        ("NotValidYet", "its certificate is not valid yet: set this machine's clock right"),
        (
            "CertificateRequired",
            "the broker wants a certificate of the client, which Postrider cannot give; set ssl_options.fail_if_no_peer_cert = false there",
        ),
        ("InvalidContentType", "the port does not speak TLS; write amqp://, or the broker's port for TLS, mostly 5671"),
        (
            "HandshakeFailure",
            "the broker speaks no version or cipher of TLS that is safe today; allow TLS 1.2 or 1.3 there",
        ),
        ("ProtocolVersion", "the broker speaks no version of TLS that is safe today; allow TLS 1.2 or 1.3 there"),
        ("invalid peer certificate", "its certificate is not accepted"),
    ];
    let (_, advice) = advice.into_iter().find(|(words, _)| reason.contains(words))?;
    Some(format!("{advice} ({reason})"))
}

/// Translates an error on a channel.
pub(super) fn on_channel(error: &Error) -> BrokerError {
    let reason = said(error);
    match code(error) {
        Some(403) => BrokerError::Forbidden { reason },
        // It was deleted. The next user declares it again.
        Some(404) => BrokerError::Absent { what: "an exchange or a queue".into(), reason },
        Some(405) => BrokerError::Locked { what: "an exclusive queue".into(), reason },
        Some(406) => match unsettled_for(&reason) {
            Some(limit) => BrokerError::Unsettled { limit },
            None => BrokerError::Protocol { reason },
        },
        // The user's limit on channels is reached; other channels may be closed later.
        Some(530) if reason.contains("has reached the maximum") => BrokerError::Lost { reason },
        Some(501..=505 | 530 | 540) => BrokerError::Protocol { reason },
        _ => BrokerError::Lost { reason },
    }
}

/// How long a delivery may stay unacknowledged, if the broker closed the channel because of that timeout.
fn unsettled_for(reason: &str) -> Option<Duration> {
    let (_, rest) = reason.split_once("delivery acknowledgement")?.1.split_once("Timeout value used: ")?;
    rest.split_once(" ms")?.0.parse().ok().map(Duration::from_millis)
}

/// Translates an error while declaring.
pub(super) fn declaring(error: &Error, what: String) -> BrokerError {
    match code(error) {
        // The broker answers a declaration with 404 only while it cannot provide the thing, such as a classic queue whose node is
        // down.
        Some(404) => BrokerError::Absent { what, reason: said(error) },
        Some(405) => BrokerError::Locked { what, reason: said(error) },
        Some(406) => BrokerError::Inequivalent { what, reason: said(error) },
        _ => on_channel(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_nodes_say_is_permanent_only_if_each_of_them_means_it() {
        let refused = |address: &str| BrokerError::Refused { address: address.into(), reason: "no vhost".into() };
        let full = BrokerError::Full { address: "b".into(), reason: "its limit".into() };
        assert_eq!(of_all(vec![refused("a"), refused("b")]), refused("a, b"));
        let mixed = of_all(vec![refused("a"), full]);
        assert!(!mixed.is_permanent(), "{mixed}");
        assert!(["its limit", "no vhost", "at a "].iter().all(|part| mixed.to_string().contains(part)), "{mixed}");
    }

    #[test]
    fn the_time_that_the_broker_allows_is_read_from_what_it_says() {
        let said = "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: 60000 ms. This timeout value can be configured";
        assert_eq!(unsettled_for(said), Some(Duration::from_secs(60)));
        assert_eq!(unsettled_for("PRECONDITION_FAILED - unknown delivery tag 7"), None);
    }

    #[test]
    fn advice_about_tls_is_about_the_mistake_that_was_made() {
        for (reason, expected) in [
            ("invalid peer certificate: UnknownIssuer", "POSTRIDER_BROKER_CA"),
            (
                "invalid peer certificate: certificate not valid for name \"a\"; certificate is only valid for b",
                "as the host",
            ),
            ("invalid peer certificate: certificate expired: verified at time 9", "clock"),
            ("received fatal alert: CertificateRequired", "fail_if_no_peer_cert"),
            ("received corrupt message of type InvalidContentType", "amqp://"),
            ("invalid peer certificate: BadSignature", "POSTRIDER_BROKER_CA"),
        ] {
            let advice = about_tls(reason).unwrap();
            assert!(advice.contains(expected) && advice.contains(reason), "{advice}");
            assert_eq!(advice.contains("BROKER_CA"), expected.contains("BROKER_CA"), "{advice}");
        }
        assert_eq!(about_tls("connection refused"), None);
    }
}
