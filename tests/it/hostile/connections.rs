//! Clients that take places and ask for nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use super::{GRPC, HANGS, Port, Security, Stage, Stream, Target, connect_from, small};
use crate::http2::{HEADERS, PREFACE, settings};
use crate::http2_client::{Http2, is_last};
use crate::raw::{RawReply, read_to_close};

/// More connections than a server has places by default, or than the limit on open files leaves it.
fn more_than_fit() -> usize {
    let (_, limit) = rlimit::getrlimit(rlimit::Resource::NOFILE).unwrap();
    4400.min(usize::try_from(limit).unwrap_or(usize::MAX) / 2)
}

#[test]
fn connections_on_which_nothing_is_asked() {
    for security in [Security::Plain, Security::Tls] {
        let target = Target::start(security);
        for port in [Port::Http, Port::Grpc] {
            for clients in [1, 40] {
                let name = format!("{security:?}, idle, {port:?}, from {clients}");
                target.withstand(&name, 1, |stage| idle(&target, port, clients, stage));
            }
        }
    }
}

/// Opens more connections than fit, from so many addresses. Opens those anew that the server closes.
fn idle(target: &Target, port: Port, clients: u8, stage: &Stage) {
    // Nothing, or half a head.
    let open = |n: usize| {
        let client = 2 + u8::try_from(n % usize::from(clients)).unwrap();
        let mut stream = connect_from(client, target.address(port)).ok()?;
        if n % 2 == 1 {
            stream.write_all(b"POST /recommend HTTP/1.1\r\nhost: local").ok()?;
        }
        stream.set_nonblocking(true).ok()?;
        Some(stream)
    };
    let mut streams: Vec<Option<TcpStream>> = (0..more_than_fit()).map(open).collect();
    stage.stand();
    while !stage.waits(Duration::from_millis(50)) {
        for (n, stream) in streams.iter_mut().enumerate() {
            if stream.as_mut().is_none_or(is_closed) {
                *stream = open(n);
            }
        }
    }
}

fn is_closed(stream: &mut TcpStream) -> bool {
    !matches!(stream.read(&mut [0; 512]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// Connections on which nothing is asked, of both listeners together.
const IDLE: usize = 10_000;

/// The most memory that an idle connection may take, in bytes.
const EACH: usize = if cfg!(debug_assertions) { 48 << 10 } else { 32 << 10 };

/// How often so many connections come and leave.
const ROUNDS_OF_IDLE: usize = 4;

/// How long the server leaves idle connections open: the time for a client of HTTP/2 to answer a ping is the shortest.
const IDLE_FOR: Duration = Duration::from_secs(55);

/// How many idle connections each listener can have: half of [`IDLE`], or fewer if the limit on open files leaves this process
/// or the server less than that.
fn idle_places() -> usize {
    let (_, limit) = rlimit::getrlimit(rlimit::Resource::NOFILE).unwrap();
    // Other tests of this process have connections too.
    (IDLE / 2).min(usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(2000) / 2)
}

/// Opens so many connections that are idle once the server has answered: of HTTP/1.1 on one listener, of HTTP/2 on the other.
fn rest(target: &Target, port: Port, count: usize) -> Vec<Box<dyn Stream>> {
    let http2 = [PREFACE, &settings(1 << 16)].concat();
    let (sent, answer_starts) = match port {
        Port::Http => (&b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"[..], &b"HTTP/1.1 "[..]),
        // The head of the server's settings.
        Port::Grpc => (&http2[..], &[0, 0][..]),
    };
    let open = |n: usize| {
        let mut stream = target.connect(port, 2 + u8::try_from(n % 200).unwrap()).unwrap();
        stream.write_all(sent).unwrap();
        stream
    };
    let mut streams: Vec<_> = (0..count).map(open).collect();
    for stream in &mut streams {
        let mut answer = [0; 512];
        let read = stream.read(&mut answer).unwrap();
        assert!(answer[..read].starts_with(answer_starts), "{port:?}: {:?}", answer[..read].escape_ascii().to_string());
    }
    streams
}

#[test]
fn ten_thousand_idle_connections_take_little_and_leave_nothing() {
    let places = idle_places();
    let number = places.to_string();
    let flags = ["--max-connections", number.as_str(), "--max-connections-per-client", "0"];
    let target = Target::with(Security::Plain, &flags);
    let process = &target.process;
    let (descriptors, mut peaks) = (process.descriptors().len(), Vec::new());
    let start = process.memory("VmRSS:");
    for round in 0..ROUNDS_OF_IDLE {
        let room = || target.metric("disconnects_total{reason=\"room\"}");
        let (mut idle, room_before, opening) = (Vec::new(), room(), Instant::now());
        for port in [Port::Http, Port::Grpc] {
            let before = process.memory("VmRSS:");
            let began = Instant::now();
            idle.extend(rest(&target, port, places));
            let each = process.memory("VmRSS:").saturating_sub(before) as usize / places;
            println!("round {round}: {places} on {port:?} in {:?}, {each} bytes each", began.elapsed());
            assert!(round > 0 || each < EACH, "an idle connection of {port:?} takes {each} bytes");
        }
        // On a machine that takes longer, the server has begun to close them.
        assert!(process.descriptors().len() >= 2 * places || opening.elapsed() > IDLE_FOR);
        peaks.push(process.memory("VmRSS:"));
        // Every place is taken. Who comes next gets that of the one who has been idle longest.
        for _ in 0..20 {
            let name = "beside idle connections";
            target.assert_answered(name, || target.recommend_by_http(name));
            target.assert_answered(name, || target.recommend_by_grpc(name));
        }
        let made = room() - room_before;
        assert!(made >= 2.0 || opening.elapsed() > IDLE_FOR, "{made} connections made room, of two listeners");
        drop(idle);
        let began = Instant::now();
        // One connection is left: that of the one who asks.
        while process.descriptors().len() > descriptors + 1 || target.metric("connections") != 1.0 {
            assert!(began.elapsed() < HANGS, "{} descriptors, {descriptors} before", process.descriptors().len());
        }
    }
    // What was freed is not always used again at once: a round took up to a third more than the first. If a third of the memory
    // of each connection stayed behind, the last round would take twice as much as the first.
    println!("{start} bytes at the start, then {peaks:?}");
    let (first, last) = (peaks[0], peaks[ROUNDS_OF_IDLE - 1]);
    assert!(
        last.saturating_sub(first) < first - start,
        "connections leave memory behind: {start} at the start, then {peaks:?}"
    );
}

/// Most health watches that a server may keep for clients without a key.
const WATCHES: usize = 256;

#[test]
fn health_watches_without_end() {
    for security in [Security::Plain, Security::Tls] {
        let target = Target::start(security);
        let clients = 2..12;
        let watches = std::sync::atomic::AtomicUsize::new(0);
        target.withstand(&format!("{security:?}, watches"), clients.len(), |stage| {
            thread::scope(|scope| {
                for client in clients.clone() {
                    let (target, watches) = (&target, &watches);
                    scope.spawn(move || {
                        let opened = (0..10).filter_map(|_| target.http2(Port::Grpc, client, u32::from(u16::MAX)).ok());
                        let mut held: Vec<_> = opened.collect();
                        let open: usize = held.iter_mut().map(watch).sum();
                        watches.fetch_add(open, std::sync::atomic::Ordering::Relaxed);
                        stage.hold();
                    });
                }
            });
        });
        let open = watches.into_inner();
        println!("{open} watches");
        assert!((1..=WATCHES).contains(&open), "{open} watches are open");
    }
}

/// Begins as many watches as the connection allows, up to 256. Returns how many the server keeps.
fn watch<S: Read + Write>(connection: &mut Http2<S>) -> usize {
    let calls = connection.allowed.min(256);
    let sent = (0..calls).map_while(|_| connection.post("/grpc.health.v1.Health/Watch", GRPC, &[0; 5]).ok()).count();
    let (mut waiting, mut open) = (sent, 0);
    while waiting > 0 {
        let Ok(frame) = connection.frame() else { break };
        // A refusal is a head that ends its stream, or a reset.
        let is_refused = is_last(&frame);
        if frame.stream > 0 && (is_refused || frame.kind == HEADERS) {
            waiting -= 1;
            open += usize::from(!is_refused);
        }
    }
    open
}

#[test]
fn connections_of_the_systems_queue_are_answered_at_the_end() {
    let mut target = Target::with(Security::Plain, &["--drain-delay", "0"]);
    // While the server stands still, the system accepts connections for it. It learns of them and of the end together.
    target.process.signal("STOP");
    let mut waiting: Vec<TcpStream> = (2..26)
        .map(|client| {
            let mut stream = connect_from(client, target.address(Port::Http)).unwrap();
            stream.write_all(&small()).unwrap();
            stream
        })
        .collect();
    target.process.signal("TERM");
    target.process.signal("CONT");
    for stream in &mut waiting {
        assert_answered(stream);
    }
    assert_eq!(target.process.wait().code(), Some(0));
}

fn assert_answered(stream: &mut TcpStream) {
    let bytes = read_to_close(stream);
    let reply = RawReply::parse(&bytes);
    assert!(reply.as_ref().is_some_and(|reply| [200, 503].contains(&reply.status)), "{reply:?}");
}
