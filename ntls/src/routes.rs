//! Which server leads to a partition, and which link a request for it takes. Read without a lock.
use std::sync::Arc;

use spec::seam::MemberId;

use crate::link::Link;
use crate::links::Shared;
use crate::server::Server;

/// The way to a partition.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) member: MemberId,
    pub(crate) server: Arc<Server>,
    /// Whether the server still offers it.
    pub(crate) offered: bool,
}

impl Route {
    /// Whether requests go this way now.
    pub(crate) fn is_open(&self) -> bool {
        self.offered && self.server.is_up()
    }
}

/// The route of a member.
pub(crate) fn find(routes: &[Route], member: MemberId) -> Option<&Route> {
    let at = routes.binary_search_by_key(&member, |route| route.member).ok()?;
    routes.get(at)
}

impl Shared {
    /// Leads requests for these partitions, all that the server offers, to it, unless another one that is up offers them
    /// already.
    pub(crate) fn route(&self, server: &Arc<Server>, serials: impl Iterator<Item = u64>) {
        let members: Vec<MemberId> = serials.map(MemberId).collect();
        self.routes.rcu(|routes| {
            let mut routes = routes.to_vec();
            for route in routes.iter_mut().filter(|route| Arc::ptr_eq(&route.server, server)) {
                route.offered = members.contains(&route.member);
            }
            for member in &members {
                let new = Route { member: *member, server: server.clone(), offered: true };
                match routes.binary_search_by_key(member, |route| route.member) {
                    Ok(at) => {
                        if let Some(other) = routes.get_mut(at).filter(|other| !other.is_open()) {
                            *other = new;
                        }
                    }
                    Err(at) => routes.insert(at, new),
                }
            }
            routes
        });
    }

    /// The server of a partition: the routed one while it is up and offers it, else any other that does; the routed one
    /// when none does, since it can say why.
    pub(crate) fn server_for(&self, member: MemberId) -> Option<Arc<Server>> {
        let routed = {
            let routes = self.routes.load();
            let route = find(&routes, member);
            if let Some(route) = route.filter(|route| route.is_open()) {
                return Some(route.server.clone());
            }
            route.map(|route| route.server.clone())
        };
        self.servers.load().iter().find(|server| server.leads_to(member)).cloned().or(routed)
    }

    /// The link for a request of so many bytes: that of the partition's server, or of another one that offers it while the last link of the first has gone and it is
    /// not known yet that it is down.
    pub(crate) fn link_for(&self, member: MemberId, bytes: usize) -> Option<Arc<Link>> {
        self.server_for(member)?.pick(bytes).or_else(|| self.link_elsewhere(member, bytes))
    }

    #[cold]
    fn link_elsewhere(&self, member: MemberId, bytes: usize) -> Option<Arc<Link>> {
        let servers = self.servers.load();
        servers.iter().filter(|server| server.leads_to(member)).find_map(|server| server.pick(bytes))
    }
}
