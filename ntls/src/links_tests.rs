//! Tests of `links` that need no socket.
use super::*;
use crate::link::chance;
use crate::platform::System;

#[test]
fn retries_stay_between_50_ms_and_5_s_and_spread() {
    for attempt in [0, 1, 5, 20, u32::MAX] {
        let delays: Vec<Duration> = (0..200).map(|_| retry_delay(chance(&System), attempt)).collect();
        assert!(delays.iter().all(|delay| (50..=5_000).contains(&delay.as_millis())));
        assert!(delays.iter().any(|delay| delay != &delays[0]), "they differ");
    }
    let most = (0..200).map(|_| retry_delay(chance(&System), 0)).max().unwrap();
    assert!(most <= Duration::from_millis(100), "the first try comes soon");
}

const MEMBER: MemberId = MemberId(7);

/// A server that offers the member, as if one link to it were up.
fn up(links: &Links, place: usize) -> Arc<Link> {
    let server = links.shared.servers.load()[place].clone();
    let link = server.links.load()[0].clone();
    link.pretend(0, 0, false);
    server.public.offer(vec![PartitionName { serial: MEMBER.0, label: "part".to_owned() }]);
    links.shared.route(&server, [MEMBER.0].into_iter());
    server.publish(Moment(1), None);
    link
}

/// Between the end of a server's last link and the moment when the server is known to be down.
#[test]
fn a_request_goes_to_another_server_when_the_links_of_the_first_have_just_gone() {
    let server = |port| ServerAddress { host: "127.0.0.1".to_owned(), port };
    let settings = LinkSettings {
        servers: vec![server(1), server(2)],
        certificate_file: PathBuf::new(),
        key_file: PathBuf::new(),
        server_ca_file: PathBuf::new(),
        links_per_member: 1,
        may_spawn: false,
        receive_timeout_ms: 20_000,
        tcp_keep_alive: false,
        software: "tests".to_owned(),
        instance: Arc::new(InstanceKey::generate()),
    };
    let links = Links::new(System::shared(), settings);
    let (first, second) = (up(&links, 0), up(&links, 1));
    let waiter = Waiter::new(&links.shared.platform);
    let picked = || links.shared.pick(&waiter, MEMBER, 10, Moment(1)).map(|link| link.number);
    assert_eq!(picked(), Some(first.number));
    first.pretend_gone();
    assert_eq!(picked(), Some(second.number));
    second.pretend_gone();
    assert_eq!(picked(), None);
}
