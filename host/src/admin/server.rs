//! Accepts and serves the connections of the admin listener, within limits.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::AdminSource;
use super::routes::{router, timed_out};
use crate::drive::{Driver, Running};

/// Connections at one time; a further one waits in the kernel's queue until one ends.
pub const CONNECTIONS_MAX: usize = 64;
/// How long the head of a request may take, the wait for it on an idle connection included.
const HEADER_TIME_MAX: Duration = Duration::from_secs(30);
/// How long a request may take from its head to its answer.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a connection is used; whoever reads too slowly holds none for longer.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(300);
/// How long requests in progress may go on at the end.
const SHUTDOWN_TIME_MAX: Duration = Duration::from_secs(3);

/// The running admin listener. Dropping it ends it as well, at once.
#[derive(Debug)]
pub struct Admin {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    connections: Arc<Semaphore>,
    accepting: Running,
    driver: Driver,
}

impl Admin {
    /// Listens on `address` and answers from `source` until [`Admin::shutdown`].
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn start(
        address: SocketAddr,
        source: Arc<dyn AdminSource>,
        driver: Driver,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (stop, stopping) = watch::channel(false);
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let router = router(source, driver.clone());
        let accept = accept(
            listener,
            router,
            driver.clone(),
            stopping,
            connections.clone(),
        );
        let accepting = driver.task(accept);
        Ok(Self {
            address,
            stop,
            connections,
            accepting,
            driver,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more requests, waits up to three seconds for those in progress, and returns.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        self.accepting.ended().await;
        let all = u32::try_from(CONNECTIONS_MAX).expect("the limit is small");
        tokio::select! {
            _ = self.connections.acquire_many(all) => {}
            () = self.driver.sleep(SHUTDOWN_TIME_MAX) => {}
        }
    }
}

async fn accept(
    listener: TcpListener,
    router: Router,
    driver: Driver,
    stopping: watch::Receiver<bool>,
    connections: Arc<Semaphore>,
) {
    let mut stop = stopping.clone();
    loop {
        let next = async {
            let permit = connections.clone().acquire_owned().await;
            (
                permit.expect("the semaphore is never closed"),
                listener.accept().await,
            )
        };
        let (permit, accepted) = tokio::select! {
            next = next => next,
            // Also when the listener was dropped.
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = serve(
                    stream,
                    router.clone(),
                    driver.clone(),
                    stopping.clone(),
                    permit,
                );
                driver.task(connection);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept an admin connection");
                // Out of file descriptors, most likely: others have to end first.
                driver.sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(
    stream: TcpStream,
    router: Router,
    driver: Driver,
    mut stopping: watch::Receiver<bool>,
    permit: OwnedSemaphorePermit,
) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request: Request<Incoming>| {
        let answer = router.call(request);
        let driver = driver.clone();
        async move {
            tokio::select! {
                answer = answer => answer,
                () = driver.sleep(REQUEST_TIME_MAX) => Ok(timed_out()),
            }
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => {
            if let Err(error) = ended {
                tracing::debug!(%error, "an admin connection broke");
            }
        }
        () = wind_down(&driver, &mut stopping) => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                _ = connection => {}
                () = driver.sleep(REQUEST_TIME_MAX) => {}
            }
        }
    }
    drop(permit);
}

/// Returns when the connection should take no further request.
async fn wind_down(driver: &Driver, stopping: &mut watch::Receiver<bool>) {
    tokio::select! {
        _ = stopping.wait_for(|stop| *stop) => {}
        () = driver.sleep(CONNECTION_TIME_MAX) => {}
    }
}
