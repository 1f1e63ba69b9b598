//! Who is let in, and what the operator reads when somebody is not.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

use ntls::ServerAddress;
use ntls::exchange::{ExchangeError, Session};
use ntls::frame::Frame;
use ntls::instance::InstanceKey;
use ntls::platform::System;
use ntls::tls::ServerTrust;
use spec::messages::{Call, Status};
use spec::platform::Platform as _;
use spec::seam::{Event, Seam as _};

mod support;
use support::{
    Act, MEMBER, Pair, SERIAL, Server, World, YEAR_MS, echo, next, request, target, waiter, within,
};

/// An authority that issues server certificates for these hosts.
fn issued(hosts: &[&str]) -> (String, Pair) {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "authority");
    let authority = params.self_signed(&authority_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(params, authority_key);
    (authority, leaf(&issuer, hosts))
}

fn leaf(issuer: &rcgen::Issuer<'_, rcgen::KeyPair>, hosts: &[&str]) -> Pair {
    let key = rcgen::KeyPair::generate().unwrap();
    let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    let certificate = rcgen::CertificateParams::new(hosts).unwrap().signed_by(&key, issuer).unwrap();
    Pair { certificate: certificate.pem(), key: key.serialize_pem() }
}

#[test]
fn an_unregistered_client_is_told_to_register_its_certificate() {
    let world = World::new();
    let mut plan = world.plan(echo());
    plan.known.clear();
    let server = Server::start(plan);
    let reason = world.why_down(server.name());
    assert!(reason.contains("hsm client register"), "{reason}");
    assert!(reason.contains(&world.client.identity().certificate().fingerprint_text()), "{reason}");
}

#[test]
fn another_certificate_of_the_registered_name_is_refused() {
    let world = World::new();
    let mut plan = world.plan(echo());
    plan.known = vec![Pair::new("client").der()];
    let server = Server::start(plan);
    let reason = world.why_down(server.name());
    assert!(reason.contains("does not know this client's certificate"), "{reason}");
}

#[test]
fn an_expired_client_certificate_is_refused_as_such() {
    let world = World::with(Pair::at("client", System.wall_ms() - YEAR_MS, 30), Pair::new("server"));
    let server = Server::start(world.plan(echo()));
    let reason = world.why_down(server.name());
    assert!(reason.contains("out of time") && reason.contains("vtl createCert"), "{reason}");
}

#[test]
fn a_pinned_server_certificate_that_expired_is_refused_as_such() {
    let world = World::with(Pair::new("client"), Pair::at("server", System.wall_ms() - YEAR_MS, 30));
    let server = Server::start(world.plan(echo()));
    let reason = world.why_down(server.name());
    assert!(reason.contains("server's certificate") && reason.contains("expired on"), "{reason}");
}

#[test]
fn a_server_certificate_of_the_future_is_refused_as_such() {
    let world = World::with(Pair::new("client"), Pair::at("server", System.wall_ms() + YEAR_MS, 30));
    let server = Server::start(world.plan(echo()));
    let reason = world.why_down(server.name());
    assert!(reason.contains("valid only from"), "{reason}");
}

#[test]
fn a_server_certificate_outside_the_server_ca_file_is_refused() {
    let world = World::new();
    let mut plan = world.plan(echo());
    plan.pair = Pair::new("server");
    let fingerprint = plan.pair.identity().certificate().fingerprint_text();
    let server = Server::start(plan);
    let reason = world.why_down(server.name());
    assert!(reason.contains("CAFile.pem") && reason.contains("vtl addServer"), "{reason}");
    assert!(reason.contains(&fingerprint), "{reason}");
}

#[test]
fn a_pinned_certificate_is_not_asked_for_its_name() {
    let world = World::with(Pair::new("client"), {
        let created = ntls::certificate::self_signed(&ntls::certificate::Wanted {
            name: "elsewhere",
            hosts: &["elsewhere.example".into()],
            now_ms: System.wall_ms(),
            days: 1,
        })
        .unwrap();
        Pair { certificate: created.certificate_pem, key: created.key_pem.to_string() }
    });
    let server = Server::start(world.plan(echo()));
    let links = world.links(vec![server.name()]);
    assert_eq!(links.partitions().len(), 1);
}

#[test]
fn a_chain_to_an_authority_in_the_file_is_trusted_for_its_name_only() {
    for (hosts, good) in [(&["127.0.0.1"], true), (&["127.0.0.9"], false)] {
        let (authority, pair) = issued(hosts);
        let world = World::with(Pair::new("client"), pair);
        std::fs::write(world.path("CAFile.pem"), authority).unwrap();
        let server = Server::start(world.plan(echo()));
        if good {
            assert_eq!(world.links(vec![server.name()]).partitions().len(), 1);
        } else {
            let reason = world.why_down(server.name());
            assert!(reason.contains("not valid for name"), "{reason}");
        }
    }
}

#[test]
fn an_authority_in_the_file_that_expired_vouches_for_nobody_and_is_named() {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "late authority");
    params.not_after = rcgen::date_time_ymd(2020, 2, 29);
    let authority = params.self_signed(&key).unwrap().pem();
    let world = World::with(Pair::new("client"), leaf(&rcgen::Issuer::new(params, key), &["127.0.0.1"]));
    std::fs::write(world.path("CAFile.pem"), &authority).unwrap();
    let server = Server::start(world.plan(echo()));
    let reason = world.why_down(server.name());
    assert!(reason.contains("late authority") && reason.contains("Feb 29 00:00:00 2020"), "{reason}");
    // Beside one of now it does no harm.
    let (other, pair) = issued(&["127.0.0.1"]);
    let world = World::with(Pair::new("client"), pair);
    std::fs::write(world.path("CAFile.pem"), authority + &other).unwrap();
    let server = Server::start(world.plan(echo()));
    assert_eq!(world.links(vec![server.name()]).partitions().len(), 1);
}

#[test]
fn a_change_of_the_file_keeps_links_to_servers_that_show_an_intermediate_authority() {
    let authority_named = |name: &str| {
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        (params, rcgen::KeyPair::generate().unwrap())
    };
    let (params, key) = authority_named("root");
    let root = params.self_signed(&key).unwrap().pem();
    let issuer = rcgen::Issuer::new(params, key);
    let (params, key) = authority_named("intermediate");
    let intermediate = params.signed_by(&key, &issuer).unwrap().pem();
    let mut pair = leaf(&rcgen::Issuer::new(params, key), &["127.0.0.1"]);
    pair.certificate.push_str(&intermediate);
    let world = World::with(Pair::new("client"), pair);
    std::fs::write(world.path("CAFile.pem"), &root).unwrap();
    let server = Server::start(world.plan(echo()));
    let links = world.links(vec![server.name()]);
    std::fs::write(world.path("CAFile.pem"), root + &Pair::new("another").certificate).unwrap();
    links.configure(world.settings(vec![server.name()]));
    // The old link is as good as before: it takes requests until a new one has come up.
    let waiter = waiter();
    let tag = links.submit(&waiter, MEMBER, &request(vec![1]), within(5_000));
    assert!(matches!(next(&links, &waiter, 5_000), Event::Reply(found, _) if found == tag));
}

#[test]
fn a_pinned_leaf_is_no_authority() {
    // The pinned server's own key signs a certificate for the impostor.
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "server");
    let certificate = params.self_signed(&key).unwrap().pem();
    let pinned = Pair { certificate, key: key.serialize_pem() };
    let issuer = rcgen::Issuer::new(params, key);
    let impostor = leaf(&issuer, &["127.0.0.1"]);
    let world = World::with(Pair::new("client"), pinned);
    let mut plan = world.plan(echo());
    plan.pair = impostor;
    let server = Server::start(plan);
    let reason = world.why_down(server.name());
    assert!(reason.contains("ServerCAFile"), "{reason}");
}

#[test]
fn missing_files_are_named_and_found_once_they_are_there() {
    let world = World::new();
    let server = Server::start(world.plan(echo()));
    let kept = std::fs::read(world.path("client.pem")).unwrap();
    std::fs::remove_file(world.path("client.pem")).unwrap();
    let links = world.links(vec![server.name()]);
    let reason = format!("{:?}", links.servers()[0].1);
    assert!(reason.contains("client.pem") && reason.contains("vtl createCert"), "{reason}");
    std::fs::write(world.path("client.pem"), kept).unwrap();
    support::until_up(&links);
    std::fs::remove_file(world.path("CAFile.pem")).unwrap();
    let reason = world.why_down(server.name());
    assert!(reason.contains("CAFile.pem") && reason.contains("vtl addServer"), "{reason}");
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let world = World::new();
    let server = Server::start(world.plan(echo()));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(world.server.der().into()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "127.0.0.1".try_into().unwrap();
    let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let socket = std::net::TcpStream::connect(server.address).unwrap();
    let mut stream = rustls::StreamOwned::new(connection, socket);
    let mut outcome = stream.write_all(b"x").and_then(|()| stream.read_exact(&mut [0]));
    if outcome.is_ok() {
        outcome = stream.read_exact(&mut [0]);
    }
    let error = outcome.unwrap_err().to_string();
    assert!(error.contains("CertificateRequired") || error.contains("CertificateUnknown"), "{error}");
}

#[test]
fn a_refusal_in_the_hello_reply_is_told() {
    let world = World::new();
    let mut plan = world.plan(echo());
    plan.refusal = "too many links".into();
    let server = Server::start(plan);
    let reason = world.why_down(server.name());
    assert!(reason.ends_with("refuses the link: too many links"), "{reason}");
}

#[test]
fn a_port_that_nobody_listens_on_is_named() {
    let world = World::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let reason = world.why_down(ServerAddress { host: "127.0.0.1".into(), port });
    assert!(reason.contains(&port.to_string()) && reason.contains("start hsmd"), "{reason}");
}

#[test]
fn a_name_that_is_none_is_named() {
    let world = World::new();
    let reason = world.why_down(ServerAddress { host: "not a host".into(), port: 1 });
    assert!(reason.contains("\"not a host\""), "{reason}");
}

/// Why a link to a port that greets with these bytes stays down.
fn greeted_with(bytes: &'static [u8]) -> String {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut hello = [0; 512];
        let _ = socket.read(&mut hello);
        let _ = socket.write_all(bytes);
        let _ = socket.read(&mut [0]);
    });
    let reason = world.why_down(ServerAddress { host: "127.0.0.1".into(), port });
    server.join().unwrap();
    reason
}

#[test]
fn a_port_that_speaks_no_tls_is_told_by_what_it_said() {
    let reason = greeted_with(b"SSH-2.0-OpenSSH_9.9\r\n");
    assert!(reason.contains("speaks no TLS") && reason.contains("SSH-2.0-OpenSSH_9.9"), "{reason}");
    let reason = greeted_with(&[0, 0, 0, 9, 10, 1]);
    assert!(reason.contains("bytes that begin 00 00 00 09 0a 01"), "{reason}");
    let reason = greeted_with(b"HT");
    assert!(reason.contains("speaks no TLS") && reason.contains("48 54"), "{reason}");
}

#[test]
fn a_server_without_tls_1_3_is_told_so() {
    // A TLS 1.2 server answers a hello without its version with the fatal alert protocol_version (70).
    let reason = greeted_with(&[21, 3, 3, 0, 2, 2, 70]);
    assert!(reason.contains("no TLS 1.3"), "{reason}");
}

#[test]
fn an_exchange_asks_and_answers() {
    let world = World::new();
    let server = Server::start(world.plan(Arc::new(|header, _| {
        assert_eq!(header.partition, SERIAL);
        let reply = spec::messages::ReplyBody { text: "fine".into(), ..Default::default() };
        vec![Act::Send(Frame::Progress(header.tag)), Act::Reply(prost::Message::encode_to_vec(&reply))]
    })));
    let (identity, instance) = (world.client.identity(), InstanceKey::generate());
    let trust = Arc::new(ServerTrust::load(&world.path("CAFile.pem")).unwrap());
    let mut session = Session::open(&target(server.name(), &identity, &trust, &instance)).unwrap();
    assert_eq!(session.hello().appliance, "hsm1");
    assert_eq!(session.negotiated_group().as_deref(), Some("X25519MLKEM768"));
    let reply = session.call(SERIAL, Call::Status(Status::default()), &[]).unwrap();
    assert_eq!(reply.text, "fine");
    assert_eq!(session.last_header().seq, 7);
    session.send_bytes(&[255; 64]).unwrap();
    assert!(matches!(session.receive(), Err(ExchangeError::Lost(_))), "what is no frame ends the connection");
}

#[test]
fn an_exchange_reports_busy_and_loss() {
    let world = World::new();
    let server = Server::start(world.plan(Arc::new(|header, _| match header.tag {
        1 => vec![Act::Send(Frame::Busy(1, 50))],
        _ => vec![Act::Drop],
    })));
    let (identity, instance) = (world.client.identity(), InstanceKey::generate());
    let trust = Arc::new(ServerTrust::load(&world.path("CAFile.pem")).unwrap());
    let mut session = Session::open(&target(server.name(), &identity, &trust, &instance)).unwrap();
    let status = || Call::Status(Status::default());
    assert_eq!(session.call(SERIAL, status(), &[]).err(), Some(ExchangeError::Busy { after_ms: 50 }));
    assert!(matches!(session.call(SERIAL, status(), &[]), Err(ExchangeError::Lost(_))));
}
