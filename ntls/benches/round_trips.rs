//! Round trips of a 64-byte request over one server's links, by the number of callers: what the link costs, without any
//! partition behind it. Compare within one run; pin it to one CPU (`taskset -c 1`) for latency.
//!
//! ```text
//! taskset -c 1 cargo bench -p ntls --bench round_trips
//! ```
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
use std::io::{ErrorKind, Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ntls::frame::{Frame, FrameReader, encode};
use ntls::links::Links;
use ntls::platform::System;
use rustls::{ServerConnection, StreamOwned};
use spec::messages::{HelloReply, PartitionName, ReplyHeader, WIRE_VERSION};
use spec::seam::{Event, Seam as _};
use zeroize::Zeroizing;

#[path = "../tests/support/mod.rs"]
mod support;
use support::{MEMBER, Registry, SERIAL, World, request, until_up, waiter, within};

/// A server that answers all requests of one read with one write.
fn serve(world: &World) -> ntls::ServerAddress {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let registry = Arc::new(Registry(vec![world.client.der()]));
    let config = Arc::new(ntls::tls::server_config(&world.server.identity(), registry).unwrap());
    thread::spawn(move || {
        while let Ok((socket, _)) = listener.accept() {
            socket.set_nodelay(true).unwrap();
            let config = config.clone();
            thread::spawn(move || answer(StreamOwned::new(ServerConnection::new(config).unwrap(), socket)));
        }
    });
    ntls::ServerAddress { host: address.ip().to_string(), port: address.port() }
}

fn answer(mut stream: StreamOwned<ServerConnection, std::net::TcpStream>) {
    let (mut frames, mut buffer, mut out) = (FrameReader::new(), vec![0; 1 << 16], Vec::new());
    loop {
        let count = match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let mut input = &buffer[..count];
        out.clear();
        while let Some(frame) = frames.take(&mut input).unwrap() {
            match frame {
                Frame::Hello(_) => out.extend_from_slice(&encode(&Frame::HelloReply(HelloReply {
                    version: WIRE_VERSION,
                    partitions: vec![PartitionName { serial: SERIAL, label: "bench".into() }],
                    ..HelloReply::default()
                }))),
                Frame::Request(header, _) => {
                    let header = ReplyHeader { tag: header.tag, ..ReplyHeader::default() };
                    out.extend_from_slice(&encode(&Frame::Reply(header, Zeroizing::new(vec![7; 300]))));
                }
                _ => {}
            }
        }
        if stream.write_all(&out).is_err() {
            return;
        }
    }
}

/// What a measurement has found.
struct Measured {
    /// Round trips a second.
    rate: f64,
    /// Processor time of both sides together for one of them, in microseconds: the figure that other load on the host
    /// changes least.
    cpu_us: f64,
    /// The median of one, in microseconds.
    p50_us: f64,
    /// The 99th percentile of one, in microseconds.
    p99_us: f64,
}

/// Processor time that this process has used.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn measure(links: &Links, callers: usize, span: Duration) -> Measured {
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let cpu = cpu_time();
    let mut all: Vec<f64> = Vec::new();
    let begun = Instant::now();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..callers)
            .map(|_| {
                let (stop, count) = (&stop, &count);
                scope.spawn(move || {
                    // A thread keeps its mailbox from one call to the next, as the module's do.
                    let (mut took, body, waiter) = (Vec::new(), request(vec![1; 64]), waiter());
                    while !stop.load(Ordering::Relaxed) {
                        let start = Instant::now();
                        links.submit(&waiter, MEMBER, &body, within(10_000));
                        loop {
                            if let Event::Reply(_, reply) = links.wait(&waiter, within(10_000)) {
                                break waiter.give_back(reply.body);
                            }
                        }
                        took.push(start.elapsed().as_secs_f64() * 1e6);
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    took
                })
            })
            .collect();
        thread::sleep(span);
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().for_each(|thread| all.extend(thread.join().unwrap()));
    });
    let count = count.load(Ordering::Relaxed) as f64;
    let (rate, cpu_us) =
        (count / begun.elapsed().as_secs_f64(), (cpu_time() - cpu).as_secs_f64() * 1e6 / count);
    all.sort_by(f64::total_cmp);
    Measured { rate, cpu_us, p50_us: all[all.len() / 2], p99_us: all[all.len() * 99 / 100] }
}

fn main() {
    let world = World::new();
    let server = serve(&world);
    for links_per_member in [1, 2] {
        let mut settings = world.settings(vec![server.clone()]);
        settings.links_per_member = links_per_member;
        println!("{links_per_member} links to the server");
        let links = Links::new(System::shared(), settings);
        until_up(&links);
        while links.links_up() < links_per_member {
            links.wait(&waiter(), within(10));
        }
        report(&links);
    }
}

fn report(links: &Links) {
    for callers in [1, 8, 32] {
        let mut runs: Vec<_> = (0..5).map(|_| measure(links, callers, Duration::from_millis(500))).collect();
        runs.sort_by(|a, b| a.cpu_us.total_cmp(&b.cpu_us));
        let (best, median) = (&runs[0], &runs[2]);
        println!(
            "{callers:>3} callers: {:>5.1} us of CPU median of 5, best {:>5.1}; {:>7.0}/s, best {:>7.0}/s; p50 {:.0} us, p99 {:.0} us",
            median.cpu_us,
            best.cpu_us,
            median.rate,
            runs.iter().map(|run| run.rate).fold(0.0, f64::max),
            median.p50_us,
            median.p99_us
        );
    }
}
