//! Where to connect next.

use quorate_protocol::v2::Member;

/// Addresses known, configured and learned.
const ENDPOINTS_MAX: usize = 32;

#[derive(Debug)]
pub(super) struct Endpoints {
    /// As given, then those that were learned.
    known: Vec<String>,
    /// How many were given.
    given: usize,
    current: usize,
    /// Named as leader by a node; tried next.
    hinted: bool,
}

impl Endpoints {
    /// `known` is not empty.
    pub(super) fn new(known: Vec<String>) -> Self {
        assert!(!known.is_empty(), "the builder refuses an empty list");
        Self {
            given: known.len(),
            known,
            current: 0,
            hinted: false,
        }
    }

    pub(super) fn current(&self) -> &str {
        &self.known[self.current]
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn hinted(&self) -> bool {
        self.hinted
    }

    /// Takes the members' addresses in the place of what was learned before; what was given stays.
    pub(super) fn learn(&mut self, members: &[Member]) {
        let current = self.known[self.current].clone();
        self.known.truncate(self.given);
        let learned = members.iter().map(|member| &member.client);
        for endpoint in learned.filter(|endpoint| is_endpoint(endpoint)) {
            if self.known.len() < ENDPOINTS_MAX && !self.known.contains(endpoint) {
                self.known.push(endpoint.clone());
            }
        }
        // Where we are stays, whatever the members say.
        let place = self.known.iter().position(|known| *known == current);
        self.current = place.unwrap_or_else(|| {
            self.known.push(current);
            self.known.len() - 1
        });
    }

    /// Goes on with the next address.
    pub(super) fn advance(&mut self) {
        self.hinted = false;
        self.current = (self.current + 1) % self.known.len();
    }

    /// Goes on with the leader, if it is named and not where we just were, else with the next.
    pub(super) fn follow(&mut self, leader: Option<&Member>) {
        let Some(leader) = leader.filter(|leader| is_endpoint(&leader.client)) else {
            return self.advance();
        };
        match self.known.iter().position(|known| *known == leader.client) {
            Some(at) if at == self.current => self.advance(),
            Some(at) => (self.current, self.hinted) = (at, true),
            None if self.known.len() < ENDPOINTS_MAX => {
                self.known.push(leader.client.clone());
                (self.current, self.hinted) = (self.known.len() - 1, true);
            }
            None => self.advance(),
        }
    }
}

/// Whether `text` has the form `tcp://host:port`.
pub(crate) fn is_endpoint(text: &str) -> bool {
    text.strip_prefix("tcp://")
        .and_then(|address| address.rsplit_once(':'))
        .is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
        })
}

#[cfg(test)]
mod tests {
    use quorate_protocol::NodeId;

    use super::*;

    /// FAULTS 46.
    #[test]
    fn a_leader_is_followed_and_learned_and_a_node_that_names_itself_is_left() {
        let member = |client: &str| Member {
            node: NodeId(1),
            client: client.into(),
            admin: String::new(),
        };
        let mut endpoints = Endpoints::new(vec!["tcp://a:1".into(), "tcp://b:1".into()]);
        endpoints.follow(Some(&member("tcp://b:1")));
        assert_eq!(
            (endpoints.current(), endpoints.hinted()),
            ("tcp://b:1", true)
        );
        endpoints.follow(Some(&member("tcp://b:1")));
        assert_eq!(
            (endpoints.current(), endpoints.hinted()),
            ("tcp://a:1", false)
        );
        endpoints.follow(Some(&member("tcp://c:1")));
        assert_eq!((endpoints.current(), endpoints.len()), ("tcp://c:1", 3));
        endpoints.follow(Some(&member("nonsense")));
        assert_eq!(endpoints.current(), "tcp://a:1");
        for n in 0..100 {
            endpoints.follow(Some(&member(&format!("tcp://x:{}", n + 1))));
        }
        assert_eq!(endpoints.len(), ENDPOINTS_MAX);
    }

    #[test]
    fn members_are_learned_and_forgotten_and_what_was_given_stays() {
        let members = |hosts: &[&str]| -> Vec<Member> {
            let member = |host: &&str| Member {
                node: NodeId(1),
                client: format!("tcp://{host}:1"),
                admin: String::new(),
            };
            hosts.iter().map(member).collect()
        };
        let mut endpoints = Endpoints::new(vec!["tcp://given:1".into()]);
        endpoints.learn(&members(&["a", "given", "b"]));
        assert_eq!(endpoints.known, ["tcp://given:1", "tcp://a:1", "tcp://b:1"]);
        endpoints.advance();
        endpoints.learn(&members(&["b", "c", "no host"]));
        assert_eq!(
            (endpoints.current(), endpoints.len()),
            ("tcp://a:1", 5),
            "we are still there"
        );
        endpoints.advance();
        endpoints.learn(&[]);
        assert_eq!(endpoints.known, ["tcp://given:1"]);
    }

    #[test]
    fn endpoints_have_one_form() {
        for good in [
            "tcp://127.0.0.1:7001",
            "tcp://[::1]:7001",
            "tcp://node-1.example:65535",
        ] {
            assert!(is_endpoint(good), "{good}");
        }
        for bad in [
            "",
            "127.0.0.1:7001",
            "tcp://:7001",
            "tcp://host",
            "tcp://host:0",
            "ipc://x",
        ] {
            assert!(!is_endpoint(bad), "{bad}");
        }
    }
}
