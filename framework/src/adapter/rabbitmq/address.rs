//! The address of a RabbitMQ broker: several hosts, options, defaults. Its errors never show the password.

use std::path::Path;
use std::str::FromStr;

use base64::Engine as _;
use lapin::tcp::OwnedTLSConfig;
use lapin::uri::{AMQPScheme, AMQPUri};

use crate::adapter::rabbitmq::RabbitMqSettings;
use crate::adapter::rabbitmq::socket::MIN_FRAME_MAX;
use crate::broker::BrokerError;

/// Seconds between heartbeats unless the address sets them: a dead peer is noticed after two of them.
const HEARTBEAT: u16 = 10;

/// The largest frame, in bytes, unless the address or the broker allows less: RabbitMQ's own default. The client allocates 64 times
/// as much for each connection, so without this limit a broker without one would cost gigabytes.
const FRAME_MAX: u32 = 128 * 1024;

/// The options that an address may have after its question mark.
const OPTIONS: [&str; 5] = ["heartbeat", "frame_max", "channel_max", "connection_timeout", "auth_mechanism"];

/// The nodes of one broker, and how to reach them.
#[derive(Clone)]
pub(super) struct Addresses {
    pub(super) nodes: Vec<AMQPUri>,
    ca: Option<String>,
}

impl Addresses {
    /// Reads `amqp://user:password@host1,host2:5673/vhost`, or several such addresses separated by commas.
    pub(super) fn parse(settings: &RabbitMqSettings) -> Result<Self, BrokerError> {
        let addresses = split(settings.address.reveal());
        let alone = addresses.len() == 1;
        let nodes = addresses.iter().map(|address| node(address, alone)).collect::<Result<Vec<_>, _>>()?;
        let ca = settings.ca_file.as_deref().map(certificates).transpose()?;
        if let Some(node) = nodes.iter().find(|node| node.scheme == AMQPScheme::AMQPS && !cfg_tls::AVAILABLE) {
            return Err(wrong(&shown(node), "this build has no TLS; build postrider with its feature `tls`".into()));
        }
        Ok(Self { nodes, ca })
    }

    pub(super) fn tls(&self) -> OwnedTLSConfig {
        OwnedTLSConfig { identity: None, cert_chain: self.ca.clone() }
    }

    /// The addresses without passwords.
    pub(super) fn shown(&self) -> String {
        self.nodes.iter().map(shown).collect::<Vec<_>>().join(",")
    }
}

#[cfg(feature = "tls")]
mod cfg_tls {
    pub(super) const AVAILABLE: bool = true;
}

#[cfg(not(feature = "tls"))]
mod cfg_tls {
    pub(super) const AVAILABLE: bool = false;
}

/// An address without its password.
pub(super) fn shown(uri: &AMQPUri) -> String {
    let vhost = if uri.vhost == "/" { "" } else { &uri.vhost };
    format!(
        "{}://{}@{}:{}/{vhost}",
        uri.scheme, uri.authority.userinfo.username, uri.authority.host, uri.authority.port
    )
}

/// Splits a list into one address per host.
fn split(text: &str) -> Vec<String> {
    let text = text.trim();
    if text.matches("://").count() > 1 {
        // A comma in a password is no separator; one in front of an address is.
        let marked = text.replace(",amqp", "\n,amqp");
        return marked.split("\n,").map(|part| part.trim().to_owned()).collect();
    }
    let Some((scheme, rest)) = text.split_once("://") else { return vec![text.to_owned()] };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (user, hosts) = authority.rsplit_once('@').map_or(("", authority), |(user, hosts)| (user, hosts));
    let at = if user.is_empty() { "" } else { "@" };
    hosts.split(',').map(|host| format!("{scheme}://{user}{at}{}{path}", host.trim())).collect()
}

/// Reads one address. It may leave out its host only if it is `alone`.
fn node(address: &str, alone: bool) -> Result<AMQPUri, BrokerError> {
    let without_password = redacted(address);
    let Some((scheme, rest)) = address.split_once("://") else {
        return Err(wrong(&without_password, "write it as amqp://user:password@host:port/vhost".into()));
    };
    if scheme != "amqp" && scheme != "amqps" {
        return Err(wrong(&without_password, "that is not a scheme we know; write amqp:// or amqps://".into()));
    }
    // The parser would end user and password at that character, and take the part before it for host and port.
    if rest.split_once(['/', '?']).is_some_and(|(_, path)| path.contains('@')) || rest.contains(['#', '\\']) {
        let reason =
            "there is a '/', '?', '#', '\\' or '@' in user or password; write it as %2F, %3F, %23, %5C or %40".into();
        return Err(wrong(&without_password, reason));
    }
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    // The parser takes an empty host for this machine, and ignores blanks.
    if host.is_empty() && !alone {
        let reason = "there is no host beside one of the commas; write it as amqp://host1,host2".into();
        return Err(wrong(&without_password, reason));
    }
    if host.contains(|c: char| c == ',' || c.is_whitespace()) {
        let reason = "there is a comma or a blank in its host; write amqp://host1,host2, or each address whole: amqp://host1,amqp://host2".into();
        return Err(wrong(&without_password, reason));
    }
    let options = address.split_once('?').map_or("", |(_, options)| options).split('&');
    let names = options.map(|option| option.split('=').next().unwrap_or(option)).filter(|name| !name.is_empty());
    if let Some(unknown) = names.clone().find(|name| !OPTIONS.contains(name)) {
        return Err(wrong(
            &without_password,
            format!("it has no option {unknown:?}; there are {}", OPTIONS.join(", ")),
        ));
    }
    let values = address.split_once('?').map_or("", |(_, options)| options).split('&');
    let numbers = values.filter_map(|option| option.split_once('=')).filter(|(name, _)| *name != "auth_mechanism");
    let port = host.rsplit(']').next().and_then(|end| Some(("port", end.rsplit_once(':')?.1)));
    for (name, value) in numbers.chain(port) {
        let most = if name == "port" { u16::MAX.into() } else { u32::MAX };
        if !value.parse::<u32>().is_ok_and(|number| number <= most) {
            // Where a part is missing, the password may stand there.
            return Err(wrong(&without_password, format!("its {name} is no number up to {most}")));
        }
    }
    // The parser's own error could quote the password.
    let mut uri = AMQPUri::from_str(address).map_err(|_| {
        wrong(
            &without_password,
            "it cannot be read; write it as amqp://user:password@host:port/vhost and percent-encode special characters"
                .into(),
        )
    })?;
    if let Some(end) = host.strip_prefix('[').and(host.find(']')) {
        // The parser does not know IPv6 addresses and would take its default host.
        uri.authority.host = host[..=end].to_owned();
    }
    if uri.vhost.is_empty() {
        uri.vhost = "/".into();
    }
    uri.query.heartbeat = uri.query.heartbeat.or(Some(HEARTBEAT));
    uri.query.frame_max = Some(frame_max(&uri).map_err(|reason| wrong(&without_password, reason))?);
    Ok(uri)
}

/// The frame limit for an address. Zero is no limit, as for the broker.
fn frame_max(uri: &AMQPUri) -> Result<u32, String> {
    match uri.query.frame_max {
        None | Some(0) => Ok(FRAME_MAX),
        Some(bytes) if (bytes as usize) < MIN_FRAME_MAX => {
            Err(format!("frame_max={bytes} is too small; AMQP frames have at least {MIN_FRAME_MAX} bytes"))
        }
        Some(bytes) => Ok(bytes.min(FRAME_MAX)),
    }
}

/// The address without any part that can be a password: only the scheme, and the host behind the last `@`.
fn redacted(address: &str) -> String {
    let is_scheme = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphabetic());
    let scheme = address.split_once("://").map(|(scheme, _)| scheme).filter(|scheme| is_scheme(scheme));
    let scheme = scheme.map_or(String::new(), |scheme| format!("{scheme}://"));
    match address.rsplit_once('@') {
        Some((_, host)) => match host.split_once('?') {
            Some((host, _)) => format!("{scheme}…@{host}?…"),
            None => format!("{scheme}…@{host}"),
        },
        None if address.contains(':') && !scheme.is_empty() => format!("{scheme}…"),
        None if address.contains(':') => "…".into(),
        None => address.to_owned(),
    }
}

/// Reads a file's certificates (PEM). The check is needed because the client silently accepts a file without any, and trusts none.
fn certificates(path: &Path) -> Result<String, BrokerError> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let wrong = |reason: String| BrokerError::Certificates { file: path.display().to_string(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let mut bodies = text.split(BEGIN).skip(1).peekable();
    if bodies.peek().is_none() {
        return Err(wrong(format!("there is no certificate in it; it has {BEGIN} before each (PEM)")));
    }
    for (number, body) in bodies.enumerate() {
        let body = body.split_once(END).map(|(body, _)| body.split_whitespace().collect::<String>());
        let bytes = body.and_then(|body| base64::engine::general_purpose::STANDARD.decode(body).ok());
        // A certificate in DER begins with a sequence.
        if bytes.is_none_or(|bytes| bytes.first() != Some(&0x30)) {
            return Err(wrong(format!("certificate {} in it is damaged", number + 1)));
        }
    }
    Ok(text)
}

fn wrong(address: &str, reason: String) -> BrokerError {
    BrokerError::Address { address: address.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Secret;

    fn parse(text: &str) -> Result<Addresses, BrokerError> {
        Addresses::parse(&RabbitMqSettings::new(Secret::new(text), "test"))
    }

    #[test]
    fn several_hosts_share_user_password_and_vhost() {
        let addresses = parse("amqp://u:p%40@a,b:5673,c/orders?heartbeat=3").unwrap();
        assert_eq!(addresses.shown(), "amqp://u@a:5672/orders,amqp://u@b:5673/orders,amqp://u@c:5672/orders");
        assert!(
            addresses
                .nodes
                .iter()
                .all(|node| node.authority.userinfo.password == "p@" && node.query.heartbeat == Some(3))
        );
    }

    #[test]
    fn what_is_no_number_in_an_address_is_named() {
        for (address, expected) in [
            ("amqp://u:hunter2@a:99999", "its port is no number up to 65535"),
            ("amqp://u:hunter2@[::1]:x/v", "its port is no number"),
            ("amqp://u:hunter2@a/v?heartbeat=abc", "its heartbeat is no number"),
            ("amqp://u:hunter2@a?frame_max=-1", "its frame_max is no number"),
        ] {
            let error = parse(address).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
        }
        for address in
            ["amqp://a", "amqp://[::1]", "amqp://[::1]:5672/", "amqp://u:p%3A@a:1/?auth_mechanism=plain&channel_max=9"]
        {
            parse(address).map(|_| ()).unwrap();
        }
    }

    #[test]
    fn several_whole_addresses_and_ipv6_are_read() {
        assert_eq!(
            parse("amqp://a,amqp://[::1]:5673/").unwrap().shown(),
            "amqp://guest@a:5672/,amqp://guest@[::1]:5673/"
        );
    }

    #[test]
    fn a_host_that_is_missing_in_a_list_is_not_taken_for_this_machine() {
        for address in [
            "amqp://u:hunter2@a,",
            "amqp://u:hunter2@a,,b/orders",
            "amqp://u:hunter2@,a",
            "amqp://a,amqp://",
            "amqp://u:p@a,amqp://w:hunter2,amqp://",
            "amqp://a,amqp://u:hunter2@b,",
            "amqp://a,,amqp://b",
            "amqp://a,amqp://\t/v",
        ] {
            let error = parse(address).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains("amqp://") && !error.contains("hunter2"), "{error}");
        }
        let reason = parse("amqp://a,").map(|_| ()).unwrap_err().to_string();
        assert!(reason.contains("no host beside one of the commas"), "{reason}");
        let in_password = parse("amqp://u:a,/b@h").map(|_| ()).unwrap_err().to_string();
        assert!(in_password.contains("%2F"), "{in_password}");
        assert_eq!(parse("amqp://").unwrap().shown(), "amqp://guest@localhost:5672/", "as everybody reads it");
    }

    #[test]
    fn a_file_without_a_whole_certificate_is_named() {
        for (name, text, expected) in [
            ("key", "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n", "no certificate"),
            ("empty", "", "no certificate"),
            ("cut", "-----BEGIN CERTIFICATE-----\nMAA=\n", "certificate 1 in it is damaged"),
            (
                "damaged",
                "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n",
                "certificate 1 in it is damaged",
            ),
        ] {
            let path = std::env::temp_dir().join(format!("postrider-{}-{name}.pem", std::process::id()));
            std::fs::write(&path, text).unwrap();
            let error = certificates(&path).unwrap_err().to_string();
            std::fs::remove_file(&path).unwrap();
            assert!(error.contains(expected) && error.contains(name) && error.starts_with("broker_ca"), "{error}");
        }
    }

    #[test]
    fn wrong_addresses_are_named_without_their_password() {
        for address in [
            "localhost",
            "http://u:hunter2@h",
            "amqp://u:hunter2@h:port",
            "u:hunter2@h",
            "amqp:u:hunter2@h",
            "amqp://guest:12/hunter2@h",
            "amqp://u:hunter2",
        ] {
            let error = parse(address).map(|_| ()).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
            assert!(error.contains("amqp"), "{error}");
        }
    }
}

#[cfg(test)]
mod property_tests;
