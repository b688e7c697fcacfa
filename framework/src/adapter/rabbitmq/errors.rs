//! What the client says, in our words.

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
        ErrorKind::MissingHeartbeatError => "no heartbeat came".into(),
        ErrorKind::InvalidConnectionState(_) | ErrorKind::InvalidChannelState(..) => "the connection is closed".into(),
        _ => error.to_string(),
    }
}

/// While a connection is made.
pub(super) fn connecting(error: &Error, address: &str) -> BrokerError {
    let (address, reason) = (address.to_owned(), said(error));
    match code(error) {
        Some(403 | 530) => BrokerError::Refused { address, reason },
        _ if reason.contains("certificate") => {
            let reason = format!(
                "{reason}; if its authority is your own, name the file with its certificate in POSTRIDER_BROKER_CA"
            );
            BrokerError::Refused { address, reason }
        }
        _ => BrokerError::Unreachable { address, reason },
    }
}

/// On a channel.
pub(super) fn on_channel(error: &Error) -> BrokerError {
    let reason = said(error);
    match code(error) {
        Some(403) => BrokerError::Forbidden { reason },
        Some(404 | 406 | 501..=505 | 530 | 540) => BrokerError::Protocol { reason },
        _ => BrokerError::Lost { reason },
    }
}

/// While something is declared.
pub(super) fn declaring(error: &Error, what: String) -> BrokerError {
    match code(error) {
        // Of what is declared the broker says so only while it cannot be had: a classic queue, say, whose node is gone.
        Some(404) => BrokerError::Absent { what, reason: said(error) },
        Some(405) => BrokerError::Locked { what, reason: said(error) },
        Some(406) => BrokerError::Inequivalent { what, reason: said(error) },
        _ => on_channel(error),
    }
}
