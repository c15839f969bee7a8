//! Answers that wait for a window which never opens.

use std::io;
use std::thread;
use std::time::Instant;

use super::{GRPC, HANGS, JSON, Port, Security, Stream, Target};
use crate::grpc_client::frame;
use crate::http2_client::{Http2, is_last};

/// What should end a stream that makes no progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// That it makes none.
    Timeout,
    /// The age of its connection.
    Age,
    /// The end of the server.
    Terminated,
}

#[test]
fn streams_without_a_window_end() {
    let cases = [Security::Plain, Security::Tls]
        .map(|security| [Ending::Timeout, Ending::Age, Ending::Terminated].map(|ending| (security, ending)));
    thread::scope(|scope| {
        for (security, ending) in cases.into_iter().flatten() {
            scope.spawn(move || assert_ends(security, ending));
        }
    });
}

fn assert_ends(security: Security, ending: Ending) {
    let flags: &[&str] = match ending {
        Ending::Timeout => &[],
        Ending::Age => &["--max-connection-age", "1"],
        // Longer than the test: it must not be needed.
        Ending::Terminated => &["--drain-delay", "0", "--drain-timeout", "600"],
    };
    let mut target = Target::with(security, flags);
    let stalled = [Port::Http, Port::Grpc].map(|port| {
        let mut connection = target.http2(port, 2, 0).unwrap();
        let streams = ask(&mut connection, port).unwrap();
        (port, connection, streams)
    });
    let began = Instant::now();
    thread::scope(|scope| {
        for (port, connection, streams) in stalled {
            let case = format!("{security:?}, {port:?}, {ending:?}");
            scope.spawn(move || wait_for_end(connection, streams, &case, ending));
        }
        if ending == Ending::Terminated {
            target.process.signal("TERM");
        }
    });
    println!("{security:?}, {ending:?}: {:?}", began.elapsed());
    if ending == Ending::Terminated {
        assert_eq!(target.process.wait().code(), Some(0));
    }
}

/// Asks for a file, for a recommendation and for metrics, or for what is like them over gRPC. Returns the number of calls.
fn ask(connection: &mut Http2<Box<dyn Stream>>, port: Port) -> io::Result<usize> {
    match port {
        Port::Http => {
            connection.get("/docs/openapi-explorer.js", &[])?;
            connection.post("/recommend", JSON, br#"{"history":["101"]}"#)?;
            connection.get("/metrics", &[])?;
            Ok(3)
        }
        Port::Grpc => {
            connection.post("/canet.v1.Recommender/GetModel", GRPC, &frame(&[]))?;
            connection.post("/canet.v1.Recommender/Recommend", GRPC, &frame(&[]))?;
            Ok(2)
        }
    }
}

/// Reads, and answers pings as a live client does, until each stream is reset or, if that is asked for, the connection is
/// closed.
fn wait_for_end(mut connection: Http2<Box<dyn Stream>>, streams: usize, case: &str, ending: Ending) {
    let began = Instant::now();
    let mut open = streams;
    while ending != Ending::Timeout || open > 0 {
        assert!(began.elapsed() < HANGS, "{case}: {open} of {streams} streams are open, and the connection is too");
        match connection.frame() {
            Ok(frame) => open -= usize::from(is_last(&frame)),
            // A server pings more often than a read waits.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                panic!("{case}: the server is silent")
            }
            Err(_) => return,
        }
    }
}
