//! The frames that clients send to a broker, as text that is the same for each run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use amq_protocol::frame::{AMQPFrame, parse_frame};
use amq_protocol::protocol::{AMQPClass, basic, exchange, queue};
use amq_protocol::types::{AMQPValue, FieldTable};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A proxy in front of a broker that records what its clients declare and publish.
pub struct Recorder {
    port: u16,
    said: Arc<Mutex<Said>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Said {
    /// A set, because the number does not matter: each new connection declares again.
    declared: BTreeSet<String>,
    published: Vec<String>,
}

impl Recorder {
    /// A recorder in front of a port of this machine.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let said = Arc::new(Mutex::new(Said::default()));
        let writes = Arc::clone(&said);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, target, Arc::clone(&writes)));
            }
        });
        Self { port, said, task }
    }

    /// Its address for a client.
    #[must_use]
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}", self.port)
    }

    /// Whether a published message contains this text.
    #[must_use]
    pub fn has_published(&self, text: &str) -> bool {
        self.said().published.iter().any(|published| published.contains(text))
    }

    /// All declared topology and published messages, sorted, with random parts replaced by names.
    #[must_use]
    pub fn text(&self, namespace: &str) -> String {
        let said = self.said();
        let mut published: Vec<String> = said.published.iter().map(|line| same_each_time(line, namespace)).collect();
        published.sort();
        let declared: BTreeSet<String> = said.declared.iter().map(|line| same_each_time(line, namespace)).collect();
        let mut text = String::new();
        for line in declared.iter().chain(&published) {
            let _ = writeln!(text, "{line}");
        }
        text
    }

    fn said(&self) -> std::sync::MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(client: TcpStream, target: u16, said: Arc<Mutex<Said>>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let back = async { tokio::io::copy(&mut from_server, &mut to_client).await.map(drop) };
    let there = async {
        let (mut unread, mut conversation) = (Vec::new(), Conversation::default());
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
            unread.extend_from_slice(&buffer[..read]);
            conversation.read(&mut unread, &mut said.lock().unwrap_or_else(PoisonError::into_inner));
            to_server.write_all(&buffer[..read]).await?;
        }
        Ok::<(), std::io::Error>(())
    };
    let _ = tokio::select! { ended = back => ended, ended = there => ended };
}

/// One connection, client to broker.
#[derive(Default)]
struct Conversation {
    /// The message being published on each channel.
    publishing: BTreeMap<u16, Publishing>,
}

struct Publishing {
    line: String,
    size: u64,
    body: Vec<u8>,
}

impl Conversation {
    /// Takes all whole frames from the front of the bytes.
    fn read(&mut self, unread: &mut Vec<u8>, said: &mut Said) {
        loop {
            let Ok((rest, frame)) = parse_frame(unread.as_slice()) else { return };
            let used = unread.len() - rest.len();
            self.heard(frame, said);
            unread.drain(..used);
        }
    }

    fn heard(&mut self, frame: AMQPFrame, said: &mut Said) {
        match frame {
            // Passive declarations change nothing, and their number depends on timing.
            AMQPFrame::Method(_, AMQPClass::Exchange(exchange::AMQPMethod::Declare(it))) if !it.passive => {
                let (durable, auto, internal) = (it.durable, it.auto_delete, it.internal);
                let arguments = table(&it.arguments);
                said.declared.insert(format!(
                    "exchange {} {} durable={durable} auto={auto} internal={internal} {arguments}",
                    it.exchange, it.kind
                ));
            }
            AMQPFrame::Method(_, AMQPClass::Exchange(exchange::AMQPMethod::Bind(it))) => {
                let arguments = table(&it.arguments);
                said.declared.insert(format!(
                    "bind exchange {} -> {} {:?} {arguments}",
                    it.source,
                    it.destination,
                    it.routing_key.as_str()
                ));
            }
            AMQPFrame::Method(_, AMQPClass::Queue(queue::AMQPMethod::Declare(it))) if !it.passive => {
                let (durable, only, auto) = (it.durable, it.exclusive, it.auto_delete);
                let arguments = table(&it.arguments);
                said.declared
                    .insert(format!("queue {} durable={durable} exclusive={only} auto={auto} {arguments}", it.queue));
            }
            AMQPFrame::Method(_, AMQPClass::Queue(queue::AMQPMethod::Bind(it))) => {
                let arguments = table(&it.arguments);
                said.declared.insert(format!(
                    "bind queue {} -> {} {:?} {arguments}",
                    it.exchange,
                    it.queue,
                    it.routing_key.as_str()
                ));
            }
            AMQPFrame::Method(channel, AMQPClass::Basic(basic::AMQPMethod::Publish(it))) => {
                let line = format!(
                    "publish {} {:?} mandatory={} immediate={}",
                    it.exchange,
                    it.routing_key.as_str(),
                    it.mandatory,
                    it.immediate
                );
                self.publishing.insert(channel, Publishing { line, size: 0, body: Vec::new() });
            }
            AMQPFrame::Header(channel, header) => {
                if let Some(publishing) = self.publishing.get_mut(&channel) {
                    publishing.size = header.body_size;
                    publishing.line.push_str(&properties(&header.properties));
                }
                self.ended(channel, said);
            }
            AMQPFrame::Body(channel, bytes) => {
                if let Some(publishing) = self.publishing.get_mut(&channel) {
                    publishing.body.extend_from_slice(&bytes);
                }
                self.ended(channel, said);
            }
            _ => {}
        }
    }

    fn ended(&mut self, channel: u16, said: &mut Said) {
        if self.publishing.get(&channel).is_some_and(|publishing| publishing.body.len() as u64 >= publishing.size)
            && let Some(Publishing { line, body, .. }) = self.publishing.remove(&channel)
        {
            said.published.push(format!("{line} \"{}\"", body.escape_ascii()));
        }
    }
}

fn properties(it: &basic::AMQPProperties) -> String {
    let mut text = String::new();
    let texts = [
        ("content_type", it.content_type()),
        ("content_encoding", it.content_encoding()),
        ("correlation_id", it.correlation_id()),
        ("reply_to", it.reply_to()),
        ("expiration", it.expiration()),
        ("message_id", it.message_id()),
        ("type", it.kind()),
        ("user_id", it.user_id()),
        ("app_id", it.app_id()),
        ("cluster_id", it.cluster_id()),
    ];
    for (name, value) in texts {
        if let Some(value) = value {
            let _ = write!(text, " {name}={:?}", value.as_str());
        }
    }
    if let Some(mode) = it.delivery_mode() {
        let _ = write!(text, " delivery_mode={mode}");
    }
    if let Some(priority) = it.priority() {
        let _ = write!(text, " priority={priority}");
    }
    if let Some(timestamp) = it.timestamp() {
        let _ = write!(text, " timestamp={timestamp}");
    }
    if let Some(headers) = it.headers() {
        let _ = write!(text, " headers={}", table(headers));
    }
    text
}

/// In the order in which it was written.
fn table(fields: &FieldTable) -> String {
    let fields: Vec<String> =
        fields.into_iter().map(|(name, value)| format!("{}: {}", name.as_str(), field(value))).collect();
    format!("{{{}}}", fields.join(", "))
}

fn field(value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(text) => format!("\"{}\"", text.as_bytes().escape_ascii()),
        AMQPValue::FieldTable(fields) => table(fields),
        AMQPValue::FieldArray(values) => {
            format!("[{}]", values.as_slice().iter().map(field).collect::<Vec<_>>().join(", "))
        }
        other => format!("{other:?}"),
    }
}

/// The text with a word for each part that differs between runs.
fn same_each_time(line: &str, namespace: &str) -> String {
    let line = line.replace(namespace, "{ns}").replace(env!("CARGO_PKG_VERSION"), "{version}");
    let mut text = String::with_capacity(line.len());
    let mut rest = line.as_str();
    while let Some(first) = rest.chars().next() {
        let inside_a_word = text.ends_with(|before: char| before.is_ascii_alphanumeric());
        let (word, length) = if inside_a_word { (None, 0) } else { special_part(rest) };
        let length = length.max(first.len_utf8());
        text.push_str(word.unwrap_or(&rest[..length]));
        rest = &rest[length..];
    }
    text
}

/// The length of the token at the front, if there is one, and its name if it is random.
fn special_part(text: &str) -> (Option<&'static str>, usize) {
    let hex = text.bytes().take_while(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte)).count();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let is_hex = |part: &str, length| part.len() == length && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let uuid = text.get(..36).filter(|id| {
        let mut parts = id.split('-');
        [8, 4, 4, 4, 12].into_iter().all(|length| parts.next().is_some_and(|part| is_hex(part, length)))
    });
    if let Some(id) = uuid {
        // Ids of version 8 are derived from the message for which they were sent.
        return (Some("{id}").filter(|_| id.as_bytes().get(14) != Some(&b'8')), 36);
    }
    if text.starts_with("g1h2") {
        return (Some("{address}"), text.find('"').unwrap_or(text.len()));
    }
    let instance = text.strip_prefix('i').and_then(|rest| rest.get(..12));
    match hex {
        32 => (Some("{trace}"), hex),
        16 => (Some("{span}"), hex),
        12 => (Some("{letter}"), hex),
        10 if digits == hex => (Some("{time}"), hex),
        _ if instance.is_some_and(|number| is_hex(number, 12)) => (Some("{instance}"), 13),
        _ => (None, 0),
    }
}
