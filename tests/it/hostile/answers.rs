//! Small calls for large answers: read, left unread, or asked for by many.

use std::io::{Read, Write};
use std::thread;

use super::{Large, Port, Security, Stage, Target, read_all};
use crate::http2::HEADERS;
use crate::http2_client::{Http2, is_last};
use crate::raw::post;

/// Files of both pages, and a document that is made for the model.
const PAGES: [&str; 6] =
    ["/", "/docs", "/console/main.js", "/console/uplot.js", "/docs/openapi-explorer.js", "/openapi.json"];

const ENCODED: [(&str, &str); 1] = [("accept-encoding", "br, gzip, deflate, zstd")];

#[test]
fn clients_that_ask_for_large_answers_all_the_time() {
    for security in [Security::Plain, Security::Tls] {
        let target = Target::start(security);
        // What is built is the same under TLS: one call of each transport is enough there.
        let calls = Large::all().into_iter().step_by(if security == Security::Plain { 1 } else { 2 });
        for large in calls {
            let clients = 2..10;
            target.withstand(&format!("{security:?}, {}", large.path), clients.len(), |stage| {
                thread::scope(|scope| {
                    for client in clients.clone() {
                        let (target, large) = (&target, &large);
                        scope.spawn(move || ask_and_read(target, large, client, stage));
                    }
                });
            });
        }
    }
}

/// Asks, reads the answer and asks again, until the attack is over.
fn ask_and_read(target: &Target, large: &Large, client: u8, stage: &Stage) {
    let request = large.http1("connection: close\r\naccept-encoding: br, gzip, deflate, zstd\r\n");
    let mut is_first = true;
    while !stage.is_over() {
        match large.port {
            Port::Http => {
                let Ok(mut stream) = target.connect(Port::Http, client) else { continue };
                let _ = stream.write_all(&request);
                read_all(&mut stream);
            }
            Port::Grpc => {
                let Ok(mut connection) = target.http2(Port::Grpc, client, 1 << 30) else { continue };
                let Ok(stream) = connection.post(large.path, large.content_type, &large.body) else { continue };
                let _ = connection.answer(stream);
            }
        }
        if is_first {
            stage.stand();
        }
        is_first = false;
    }
}

#[test]
fn large_answers_that_wait_for_a_window() {
    for security in [Security::Plain, Security::Tls] {
        let target = Target::start(security);
        for large in Large::all() {
            let clients = 2..6;
            target.withstand(&format!("{security:?}, no window, {}", large.path), clients.len(), |stage| {
                thread::scope(|scope| {
                    for client in clients.clone() {
                        let (target, large) = (&target, &large);
                        scope.spawn(move || {
                            hold(target, (large.port, client), stage, |connection, _| {
                                connection.post(large.path, large.content_type, &large.body)
                            });
                        });
                    }
                });
            });
        }
    }
}

#[test]
fn pages_that_wait_for_a_window() {
    for security in [Security::Plain, Security::Tls] {
        let target = Target::start(security);
        let clients = 2..16;
        target.withstand(&format!("{security:?}, pages"), clients.len(), |stage| {
            thread::scope(|scope| {
                for client in clients.clone() {
                    let target = &target;
                    scope.spawn(move || {
                        hold(target, (Port::Http, client), stage, |connection, n| {
                            connection.get(PAGES[n % PAGES.len()], &ENCODED)
                        });
                    });
                }
            });
        });
    }
}

/// Each connection asks for as many answers as it may, all as gzip. Together they are more than the room for answers.
#[test]
fn compressed_answers_that_wait_for_a_window() {
    let target = Target::start(Security::Plain);
    let connections = 72;
    target.withstand("compressed, no window", connections, |stage| {
        thread::scope(|scope| {
            for n in 0..connections {
                let (target, client) = (&target, 2 + n as u8 % 12);
                scope.spawn(move || {
                    hold(target, (Port::Http, client), stage, |connection, _| {
                        connection.get("/openapi.json", &ENCODED)
                    });
                });
            }
        });
    });
}

/// Opens a connection without a window and makes as many calls as it allows, up to 256. Stands when the head of each
/// answer has come, and reads no further.
fn hold(
    target: &Target,
    (port, client): (Port, u8),
    stage: &Stage,
    call: impl Fn(&mut Http2<Box<dyn super::Stream>>, usize) -> std::io::Result<u32>,
) {
    let mut connection = target.http2(port, client, 0);
    if let Ok(connection) = &mut connection {
        let calls = connection.allowed.min(256);
        let sent = (0..calls).map_while(|n| call(connection, n).ok()).count();
        let mut waiting = sent;
        while waiting > 0 {
            let Ok(frame) = connection.frame() else { break };
            waiting -= usize::from(frame.stream > 0 && (frame.kind == HEADERS || is_last(&frame)));
        }
    }
    stage.hold();
    drop(connection);
}

#[test]
fn large_answers_that_nobody_reads() {
    for security in [Security::Plain, Security::Tls] {
        let target = Target::start(security);
        for large in Large::all().into_iter().filter(|large| large.port == Port::Http) {
            target.withstand(&format!("{security:?}, unread, {}", large.path), 1, |stage| {
                let request = large.http1("");
                let clients = (0..100).map(|n| 2 + n % 10);
                let mut unread: Vec<_> = clients
                    .filter_map(|client| {
                        let mut stream = target.connect(Port::Http, client).ok()?;
                        stream.write_all(&request).ok()?;
                        Some(stream)
                    })
                    .collect();
                // The first byte comes when the answer is ready.
                for stream in &mut unread {
                    let _ = stream.read(&mut [0]);
                }
                stage.hold();
            });
        }
    }
}

#[test]
fn cold_starts_of_all_items_from_many_connections() {
    const THREADS: u8 = 4;
    const EACH: usize = 250;
    for security in [Security::Plain, Security::Tls] {
        let target = Target::start(security);
        let request = String::from_utf8(post("/recommend", super::cold_start().to_string().as_bytes())).unwrap();
        let request = request.replace("connection: close\r\n", "");
        target.withstand(&format!("{security:?}, cold starts"), usize::from(THREADS), |stage| {
            thread::scope(|scope| {
                for thread in 0..THREADS {
                    let (target, request) = (&target, request.as_bytes());
                    scope.spawn(move || {
                        let open = |_| target.connect(Port::Http, 2 + thread).ok();
                        let mut streams: Vec<_> = (0..EACH).filter_map(open).collect();
                        let mut is_first = true;
                        while !stage.is_over() && !streams.is_empty() {
                            streams.retain_mut(|stream| stream.write_all(request).is_ok());
                            streams.retain_mut(|stream| read_answer(stream).is_some());
                            if is_first {
                                stage.stand();
                            }
                            is_first = false;
                        }
                    });
                }
            });
        });
    }
}

/// Reads one answer of a connection that stays open.
fn read_answer(stream: &mut impl Read) -> Option<()> {
    let mut head = Vec::new();
    let mut bytes = [0; 1 << 14];
    let (end, length) = loop {
        let read = stream.read(&mut bytes).ok().filter(|read| *read > 0)?;
        head.extend_from_slice(&bytes[..read]);
        if let Some(reply) = crate::raw::RawReply::parse(&head) {
            let end = head.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
            break (end, reply.header("content-length")?.parse::<usize>().ok()?);
        }
    };
    let mut left = (end + length).checked_sub(head.len())?;
    while left > 0 {
        left -= stream.read(&mut bytes[..left.min(1 << 14)]).ok().filter(|read| *read > 0)?;
    }
    Some(())
}
