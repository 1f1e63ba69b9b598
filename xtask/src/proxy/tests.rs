//! The proxy between two plain sockets that speak in TLS records.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::io::{Read, Write};

use super::*;

/// A server that sends every record back twice as long, and a proxy before it.
fn echo() -> (Arc<Proxy>, SocketAddr) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let behind = server.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in server.incoming().flatten() {
            thread::spawn(move || {
                while let Some(content) = receive(&mut stream) {
                    if stream.write_all(&record(&[content.clone(), content].concat())).is_err() {
                        return;
                    }
                }
            });
        }
    });
    let front = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    (Proxy::start(&[(front, behind)]).unwrap(), front)
}

fn record(content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![23, 3, 3];
    bytes.extend((content.len() as u16).to_be_bytes());
    bytes.extend(content);
    bytes
}

fn receive(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut head = [0; 5];
    stream.read_exact(&mut head).ok()?;
    let mut content = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
    stream.read_exact(&mut content).ok()?;
    Some(content)
}

fn ask(stream: &mut TcpStream, content: &[u8]) -> Option<Vec<u8>> {
    stream.write_all(&record(content)).ok()?;
    receive(stream)
}

#[test]
fn records_go_through_and_are_counted() {
    let (proxy, front) = echo();
    let mut stream = TcpStream::connect(front).unwrap();
    assert_eq!(ask(&mut stream, &[7; 40]), Some(vec![7; 80]));
    assert_eq!(ask(&mut stream, &[8; 9_000]), Some(vec![8; 18_000]));
    assert_eq!(proxy.seen(0), Seen { connections: 1, up: 2, down: 2 });
}

#[test]
fn a_trigger_cuts_request_answer_or_half_an_answer_once() {
    for (words, arrives) in [("request min=40", 0), ("reply min=40", 0), ("half-reply min=40", 1)] {
        let (proxy, front) = echo();
        let mut stream = TcpStream::connect(front).unwrap();
        proxy.arm(Some(Trigger::parse(words.split(' ')).unwrap()));
        assert_eq!(ask(&mut stream, &[7; 30]), Some(vec![7; 60]), "too short to count");
        stream.write_all(&record(&[7; 40])).unwrap();
        let mut rest = Vec::new();
        let ended = stream.read_to_end(&mut rest);
        assert!(ended.is_err() || rest.len() < 85, "{words}: the connection is cut");
        assert!(rest.len() >= arrives, "{words}: {} bytes arrived", rest.len());
        assert_eq!(proxy.fired(), 1, "{words}");
        // A reply that was to be cut had been made: its request got through.
        assert_eq!(proxy.seen(0).down, if words.contains("reply") { 2 } else { 1 }, "{words}");
        let mut again = TcpStream::connect(front).unwrap();
        assert_eq!(ask(&mut again, &[7; 40]), Some(vec![7; 80]), "{words}: once");
    }
}

#[test]
fn what_a_black_hole_holds_goes_on_when_it_is_cleared() {
    let (proxy, front) = echo();
    let mut stream = TcpStream::connect(front).unwrap();
    assert!(ask(&mut stream, &[1; 40]).is_some());
    for words in ["blackhole", "oneway=up", "oneway=down"] {
        proxy.set(0, Fault::parse([words].into_iter()).unwrap());
        stream.write_all(&record(&[2; 40])).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        assert!(stream.read(&mut [0]).is_err(), "{words}: nothing arrives");
        stream.set_read_timeout(None).unwrap();
        proxy.set(0, Fault::default());
        assert_eq!(receive(&mut stream), Some(vec![2; 80]), "{words}");
    }
}

#[test]
fn delays_trickles_and_resets_do_what_they_say() {
    let (proxy, front) = echo();
    let mut stream = TcpStream::connect(front).unwrap();
    for (words, least_ms) in [("delay=40ms", 80), ("trickle", 5 * 45 * 2), ("loss=100%", 400)] {
        proxy.set(0, Fault::parse([words].into_iter()).unwrap());
        let begun = std::time::Instant::now();
        assert_eq!(ask(&mut stream, &[3; 40]), Some(vec![3; 80]), "{words}");
        assert!(begun.elapsed() >= Duration::from_millis(least_ms), "{words}: {:?}", begun.elapsed());
    }
    proxy.set(0, Fault::default());
    proxy.cut(0);
    assert_eq!(ask(&mut stream, &[3; 40]), None, "cut");
    proxy.set(0, Fault { refuse: true, ..Fault::default() });
    let refused = TcpStream::connect(front).ok().and_then(|mut stream| ask(&mut stream, &[3; 40]));
    assert_eq!(refused, None);
}

#[test]
fn words_that_are_none_are_refused() {
    assert!(Fault::parse(["slow"].into_iter()).is_err());
    assert!(Fault::parse(["delay=soon"].into_iter()).is_err());
    assert!(Trigger::parse(["sideways"].into_iter()).is_err());
    assert_eq!(
        Fault::parse(["delay=5ms", "oneway=up"].into_iter()).unwrap(),
        Fault { delay: Duration::from_millis(5), hold_up: true, ..Fault::default() }
    );
}
