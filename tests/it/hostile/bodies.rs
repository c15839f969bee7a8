//! Request bodies that never end, and small ones that unpack to large ones.

use std::io::Write;
use std::sync::{Barrier, OnceLock};
use std::thread;

use flate2::write::ZlibEncoder;
use flate2::{Compress, Compression, FlushCompress};
use serde_json::Value;

use super::{GRPC, JSON, Port, Security, Stage, Stream, Target, read_all};
use crate::http2_client::{Http2, is_last};
use crate::raw::{RawReply, post};

/// The largest body, in bytes.
const LARGEST: usize = 1 << 20;

/// The paths that take JSON.
const PATHS: [&str; 3] = ["/recommend", "/recommend/batch", "/v2/models/small/infer"];

/// Where and on which connections bodies are left half-sent.
struct HalfSent {
    port: Port,
    path: &'static str,
    /// The last numbers of the addresses that they come from.
    clients: std::ops::Range<u8>,
}

impl HalfSent {
    /// Sizes of bodies and their numbers, largest first. The large ones are more than the room for bodies, 64 MiB, has place
    /// for; the small ones take what is left of it.
    const BODIES: [(usize, usize); 4] = [(LARGEST, 96), (16 << 10, 96), (512, 96), (32, 96)];

    /// Sends all but the last byte of each body, and holds them.
    fn hold(&self, target: &Target, stage: &Stage) {
        // A body that is refused gives back what it took. So no client begins with a size before all have done with larger ones.
        let turn = Barrier::new(self.clients.len());
        thread::scope(|scope| {
            for client in self.clients.clone() {
                let turn = &turn;
                scope.spawn(move || match self.port {
                    Port::Http => self.hold_with(turn, stage, |size| self.send_http1(target, client, size)),
                    Port::Grpc => self.hold_with(turn, stage, |size| self.send_grpc(target, client, size)),
                });
            }
        });
    }

    fn hold_with<C>(&self, turn: &Barrier, stage: &Stage, send: impl Fn(usize) -> Option<C>) {
        let mut held = Vec::new();
        for (size, count) in HalfSent::BODIES {
            held.extend((0..count.div_ceil(self.clients.len())).map(|_| send(size)));
            turn.wait();
        }
        stage.hold();
        drop(held);
    }

    fn send_http1(&self, target: &Target, client: u8, size: usize) -> Option<Box<dyn Stream>> {
        let mut stream = target.connect(Port::Http, client).ok()?;
        let request = post(self.path, &padded_body(size));
        // Where the server refuses the body, the rest cannot be sent.
        let _ = stream.write_all(&request[..request.len() - 1]);
        Some(stream)
    }

    fn send_grpc(&self, target: &Target, client: u8, size: usize) -> Option<Http2<Box<dyn Stream>>> {
        let mut connection = target.http2(Port::Grpc, client, 0).ok()?;
        let stream = connection.begin(self.path, GRPC).ok()?;
        let length = u32::try_from(size - 5).unwrap();
        let message = [&[0], &length.to_be_bytes()[..], &vec![b' '; size - 6]].concat();
        let _ = connection.part(stream, &message);
        Some(connection)
    }
}

/// The small request, padded to a size.
fn padded_body(size: usize) -> Vec<u8> {
    let mut body = br#"{"history":["101","103"],"k":5}"#.to_vec();
    assert!(size >= body.len());
    body.resize(size, b' ');
    body
}

#[test]
fn bodies_that_do_not_end_fill_the_room_for_bodies() {
    for security in [Security::Plain, Security::Tls] {
        let target = Target::start(security);
        for (port, path) in [
            (Port::Http, PATHS[0]),
            (Port::Http, PATHS[1]),
            (Port::Http, PATHS[2]),
            (Port::Grpc, "/canet.v1.Recommender/Recommend"),
        ] {
            let attack = HalfSent { port, path, clients: 2..14 };
            let parts = attack.clients.len();
            target.withstand(&format!("{security:?}, half-sent, {path}"), parts, |stage| attack.hold(&target, stage));
        }
    }
}

#[test]
fn one_client_that_fills_its_share_leaves_room_for_the_large_bodies_of_others() {
    let target = Target::start(Security::Plain);
    let attack = HalfSent { port: Port::Http, path: "/recommend", clients: 2..3 };
    let answer = OnceLock::new();
    target.withstand("half-sent by one client", 2, |stage| {
        thread::scope(|scope| {
            scope.spawn(|| attack.hold(&target, stage));
            // The first one holds.
            while stage.standing() < 1 {
                thread::yield_now();
            }
            let _ = answer.set(target.exchange(&post("/recommend", &padded_body(LARGEST / 2))));
            stage.stand();
        });
    });
    let reply = answer.into_inner().flatten();
    assert_eq!(reply.as_ref().map(|reply| reply.status), Some(200), "{reply:?}");
}

/// A body in an encoding, of about 1 GiB when it is unpacked.
struct Bomb {
    encoding: &'static str,
    body: Vec<u8>,
}

impl Bomb {
    const MIB: usize = 1024;

    fn all() -> [Bomb; 4] {
        let deflated = deflated();
        [
            // Header: deflate, no time, unknown system. The checksum at the end is never reached.
            Bomb { encoding: "gzip", body: [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff], &deflated[..]].concat() },
            Bomb { encoding: "deflate", body: [&[0x78, 0x9c], &deflated[..]].concat() },
            Bomb { encoding: "br", body: brotli() },
            Bomb { encoding: "zstd", body: zstd() },
        ]
    }

    fn request(&self, path: &str) -> Vec<u8> {
        let Bomb { encoding, body } = self;
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: {JSON}\r\n\
             content-encoding: {encoding}\r\ncontent-length: {length}\r\n\r\n"
        );
        [head.as_bytes(), body].concat()
    }
}

/// Blanks by DEFLATE (RFC 1951). After a full flush nothing before it is referred to, so one part serves for all.
fn deflated() -> Vec<u8> {
    let mut packed = Vec::with_capacity(1 << 16);
    Compress::new(Compression::best(), false)
        .compress_vec(&vec![b' '; 1 << 20], &mut packed, FlushCompress::Full)
        .unwrap();
    packed.repeat(Bomb::MIB)
}

/// Blanks by Brotli (RFC 7932): the start of a stream, and a part of 1 MiB that only repeats its last byte. Both came
/// from Python's `brotli.Compressor(quality=9)` with `flush()` after each part.
fn brotli() -> Vec<u8> {
    const START: &[u8] =
        b"\xab\x28\xa1\x07\x40\xa0\x25\x47\xda\x0e\xa8\x34\xd2\xf6\x44\x5f\x95\x1c\x58\x88\xe5\xb9\xc9\xcf\
                           \x79\xa0\x23\x0e\x27";
    const PART: &[u8] = b"\xfa\xff\x7f\x00\x24\x00\xe2\xb0\x00\x74\xef\x1f\x0c";
    [START, &PART.repeat(Bomb::MIB)].concat()
}

/// Blanks by Zstandard (RFC 8878): a frame with a window of 1 MiB, of blocks that repeat one byte 128 KiB times.
fn zstd() -> Vec<u8> {
    const FRAME: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd, 0, 10 << 3];
    const BLOCK: &[u8] = &[2, 0, 0x10, b' '];
    [FRAME, &BLOCK.repeat(8 * Bomb::MIB)].concat()
}

#[test]
fn bodies_that_unpack_to_a_gibibyte() {
    let bombs = Bomb::all();
    for security in [Security::Plain, Security::Tls] {
        let target = Target::start(security);
        let clients = 2..8;
        target.withstand(&format!("{security:?}, packed"), clients.len(), |stage| {
            thread::scope(|scope| {
                for client in clients.clone() {
                    let (target, bombs) = (&target, &bombs);
                    scope.spawn(move || {
                        let calls = PATHS.iter().flat_map(|path| bombs.iter().map(move |bomb| (*path, bomb)));
                        for (n, (path, bomb)) in calls.cycle().enumerate() {
                            if stage.is_over() {
                                break;
                            }
                            assert_refused(target, client, path, bomb);
                            if n == PATHS.len() * bombs.len() {
                                stage.stand();
                            }
                        }
                    });
                }
            });
        });
    }
}

fn assert_refused(target: &Target, client: u8, path: &str, bomb: &Bomb) {
    let mut stream = target.connect(Port::Http, client).unwrap();
    // The server refuses before it has read all, and may close then.
    let _ = stream.write_all(&bomb.request(path));
    let case = format!("{path}, {}", bomb.encoding);
    let Some(reply) = RawReply::parse(&read_all(&mut stream)) else {
        // What was sent after the refusal makes the system reset the connection, and the answer may be lost.
        return;
    };
    assert_eq!(reply.status, 413, "{case}: {reply:?}");
    if !path.starts_with("/v2") {
        let body: Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(body["code"], "too_large", "{case}");
    }
}

/// Some hundred bytes that unpack to a mebibyte of JSON. It is parsed three times: as it is, with quotes around the long id,
/// and to find the field that does not exist.
fn slow_to_parse() -> Vec<u8> {
    let ids = ",1".repeat((LARGEST - 100) / 2);
    let json = format!("{{\"history\":[99999999999999999999{ids}],\"zz\":1}}");
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::best());
    packed.write_all(json.as_bytes()).unwrap();
    packed.finish().unwrap()
}

#[test]
fn small_bodies_that_take_long_to_parse() {
    let body = slow_to_parse();
    assert!(body.len() < 4096, "{}", body.len());
    let head = [("content-type", JSON), ("content-encoding", "deflate")];
    for security in [Security::Plain, Security::Tls] {
        let target = Target::start(security);
        let clients = 2..6;
        target.withstand(&format!("{security:?}, slow to parse"), clients.len(), |stage| {
            thread::scope(|scope| {
                for client in clients.clone() {
                    let (target, body) = (&target, &body);
                    scope.spawn(move || {
                        let mut is_first = true;
                        // A connection has as many streams as it allows, and then there is another one.
                        while !stage.is_over() {
                            let Ok(mut connection) = target.http2(Port::Http, client, 1 << 16) else { continue };
                            let calls = connection.allowed.min(64);
                            let sent = (0..calls).map_while(|_| connection.post_with("/recommend", &head, body).ok());
                            let mut waiting = sent.count();
                            if is_first {
                                stage.stand();
                            }
                            is_first = false;
                            while waiting > 0 && !stage.is_over() {
                                let Ok(frame) = connection.frame() else { break };
                                waiting -= usize::from(frame.stream > 0 && is_last(&frame));
                            }
                        }
                    });
                }
            });
        });
    }
}
