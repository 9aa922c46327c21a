//! What is simulated: tasks that end with their node, and disks that take time.

use tokio::sync::mpsc;

use super::*;

fn simulate(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime")
        .block_on(future);
}

/// A task that ends only when it is ended, and then drops the sender.
async fn for_ever(held: mpsc::Sender<()>) {
    std::future::pending::<()>().await;
    drop(held);
}

#[test]
fn a_node_is_switched_off_with_every_task_that_came_of_it() {
    simulate(async {
        let (off, on) = (Driver::simulation(1, 0), Driver::simulation(2, 0));
        let (held, mut gone) = mpsc::channel(1);
        let (other, mut still_there) = mpsc::channel(1);
        on.task(for_ever(other));
        let inner = held.clone();
        off.task(async move {
            // As openraft starts its tasks.
            spawn(for_ever(inner.clone()));
            for_ever(inner).await;
        });
        off.task(for_ever(held.clone()));
        off.sleep(Duration::from_millis(1)).await;
        off.switch_off().await;
        off.task(for_ever(held)).ended().await;
        assert_eq!(gone.recv().await, None);
        assert_eq!(
            still_there.try_recv(),
            Err(mpsc::error::TryRecvError::Empty)
        );
    });
}

#[test]
fn a_simulated_disk_takes_time_and_a_real_one_its_own() {
    simulate(async {
        let (simulated, real) = (
            Driver::simulation(1, 0),
            Driver::node().expect("randomness"),
        );
        let start = simulated.now();
        real.before_sync().await;
        assert_eq!(simulated.now(), start);
        for _ in 0..20 {
            simulated.before_sync().await;
        }
        assert!(simulated.now() > start);
    });
}

#[test]
fn a_paused_node_does_nothing_and_then_goes_on_later() {
    simulate(async {
        let paused = Driver::simulation(1, 0);
        let (ticks, mut ticked) = mpsc::channel(100);
        let driver = paused.clone();
        paused.task(async move {
            loop {
                driver.sleep(Duration::from_millis(10)).await;
                if ticks.send(driver.now()).await.is_err() {
                    return;
                }
            }
        });
        ticked.recv().await.expect("it runs");
        let start = paused.now();
        paused.pause();
        paused.sleep(Duration::from_secs(5)).await;
        assert_eq!(ticked.try_recv(), Err(mpsc::error::TryRecvError::Empty));
        paused.resume();
        let next = ticked.recv().await.expect("it runs again");
        assert!(next >= start + Duration::from_secs(5));
    });
}

#[test]
fn applying_takes_time_only_where_it_was_asked_for() {
    simulate(async {
        let driver = Driver::simulation(1, 0);
        let start = driver.now();
        driver.before_apply().await;
        assert_eq!(driver.now(), start);
        driver.slow_apply(Duration::from_secs(1));
        for _ in 0..20 {
            driver.before_apply().await;
        }
        assert!(driver.now() > start);
    });
}
