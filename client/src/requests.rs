//! Requests from the cluster to this client.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use quorate_protocol::RequestId;
use tokio::sync::mpsc;

use crate::session::Event;

/// The requests to a client, in order. From [`crate::Client::requests`].
///
/// It ends with the session: no other request can come. So a consumer that holds a clone of the
/// client, to answer, learns of the end too.
#[derive(Debug)]
pub struct Requests {
    pub(crate) receiver: mpsc::UnboundedReceiver<ServerRequest>,
}

impl Requests {
    /// The next request; `None` once the session has ended or the client is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<ServerRequest> {
        self.receiver.recv().await
    }
}

impl futures::Stream for Requests {
    type Item = ServerRequest;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.receiver.poll_recv(context)
    }
}

/// A request from the cluster. The cluster keeps it until it is acknowledged; one that is dropped
/// without is delivered again later.
#[derive(Debug)]
pub struct ServerRequest {
    /// 1, 2, 3, ... in its session.
    pub id: RequestId,
    /// Replicated time of the command that made it, milliseconds since the Unix epoch.
    pub created_at: i64,
    /// The request.
    pub payload: Vec<u8>,
    /// Taken by the acknowledgement. At most 64 requests are with consumers, so the channel holds
    /// no more than that.
    pub(crate) feedback: Option<mpsc::UnboundedSender<Event>>,
}

impl ServerRequest {
    /// Says that the request was handled. Returns at once; the client tells the cluster, again if it
    /// must, as soon as every earlier request is acknowledged too.
    ///
    /// ```
    /// # use quorate_client::Client;
    /// # use quorate_tests::{Cluster, kv};
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = Cluster::start(1).await?;
    /// # let client = Client::builder(cluster.endpoints()).connect().await?;
    /// client.call_bytes(kv::watch("a")).await?;
    /// client.call_bytes(kv::set("a", "1")).await?;
    /// let mut requests = client.requests().expect("nobody took them");
    /// let request = requests.next().await.expect("the session lives");
    /// println!("request {}: {} bytes", request.id, request.payload.len());
    /// request.ack();
    /// # client.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn ack(mut self) {
        if let Some(feedback) = self.feedback.take() {
            // The client is gone: the cluster sends the request again when the session is resumed.
            let _ = feedback.send(Event::Handled(self.id));
        }
    }
}

impl Drop for ServerRequest {
    fn drop(&mut self) {
        if let Some(feedback) = self.feedback.take()
            && feedback.send(Event::Returned(self.id)).is_ok()
        {
            tracing::warn!(id = %self.id, "a request was dropped without an acknowledgement");
        }
    }
}
