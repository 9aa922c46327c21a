//! Who leads and where the members are, as clients are told.

use quorate_protocol::v2::{Member, ServerMessage};
use quorate_protocol::{NodeId, Nonce, Version};

use super::Gateway;
use super::edge::ConnectionId;

/// The leader, if one is known, and all members.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Topology {
    leader: Option<NodeId>,
    members: Vec<Member>,
}

impl Gateway {
    pub(super) fn members(&self) -> Vec<Member> {
        self.parts
            .consensus
            .members()
            .into_iter()
            .map(|(node, member)| Member {
                node: NodeId(node),
                client: member.client,
                admin: member.admin,
            })
            .collect()
    }

    /// The leader, as clients are told of it.
    pub(super) fn leader(&self) -> Option<Member> {
        let leader = self.leadership.leader?;
        self.members()
            .into_iter()
            .find(|member| member.node == NodeId(leader))
    }

    fn topology(&self) -> Topology {
        Topology {
            leader: self.leadership.leader.map(NodeId),
            members: self.members(),
        }
    }

    /// Answers who asks.
    pub(super) fn answer_topology(&self, id: ConnectionId, nonce: Nonce) {
        let Topology { leader, members } = self.topology();
        self.send(
            id,
            ServerMessage::Topology {
                nonce,
                leader,
                members,
            },
        );
    }

    /// Tells one client, unasked. Version 1 has no word for it.
    pub(super) fn tell_topology(&self, id: ConnectionId) {
        let Topology { leader, members } = self.topology();
        self.send(id, ServerMessage::TopologyChanged { leader, members });
    }

    /// Tells every client, if it is not what they were told last.
    pub(super) fn tell_changed_topology(&mut self) {
        let topology = self.topology();
        if topology == self.topology_told {
            return;
        }
        self.topology_told = topology;
        for (id, connection) in &self.connections {
            if connection.version == Some(Version::V2) {
                self.tell_topology(*id);
            }
        }
    }
}
