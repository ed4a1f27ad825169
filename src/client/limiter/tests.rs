//! The limiter on a paused clock: order, rates, and what headers and refusals change.

use std::num::NonZeroUsize;

use super::*;
use crate::client::Quota;

fn limiter(concurrency: Concurrency) -> Limiter {
    Limiter::new(LimiterConfig { concurrency, requests_per_minute: None, tokens_per_minute: None })
}

fn fixed(number: usize) -> Concurrency {
    Concurrency::Fixed(NonZeroUsize::new(number).unwrap())
}

fn adaptive(most: usize) -> Concurrency {
    Concurrency::Adaptive { most: NonZeroUsize::new(most).unwrap() }
}

fn requests_left(limit: u64, remaining: u64, reset: u64) -> Pace {
    let quota =
        Quota { limit: Some(limit), remaining: Some(remaining), reset: Some(Duration::from_secs(reset)) };
    Pace { requests: quota, ..Pace::default() }
}

/// Whether a request is admitted without time passing.
async fn admitted_now(limiter: &Limiter) -> bool {
    tokio::time::timeout(Duration::ZERO, limiter.acquire(1)).await.is_ok()
}

/// The seconds until a request of `tokens` is admitted, to the nearest.
async fn seconds(limiter: &Limiter, tokens: u64) -> u64 {
    let start = Instant::now();
    drop(limiter.acquire(tokens).await);
    start.elapsed().as_secs_f64().round() as u64
}

#[tokio::test(start_paused = true)]
async fn no_more_than_the_fixed_number_are_in_flight() {
    let limiter = limiter(fixed(2));
    let first = limiter.acquire(1).await;
    let _second = limiter.acquire(1).await;
    assert!(!admitted_now(&limiter).await);
    first.succeeded();
    assert!(admitted_now(&limiter).await);
    assert_eq!((limiter.in_flight(), limiter.concurrency()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn requests_are_admitted_in_order_and_a_cancelled_one_is_passed_over() {
    let limiter = limiter(fixed(1));
    let held = limiter.acquire(1).await;
    let (sender, mut order) = tokio::sync::mpsc::unbounded_channel();
    let tasks: Vec<_> = (0..4)
        .map(|number| {
            let (limiter, sender) = (limiter.clone(), sender.clone());
            tokio::spawn(async move {
                let permit = limiter.acquire(1).await;
                sender.send(number).unwrap();
                tokio::time::sleep(Duration::from_secs(1)).await;
                permit.succeeded();
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    tasks[0].abort();
    tasks[2].abort();
    drop(held);
    assert_eq!((order.recv().await, order.recv().await), (Some(1), Some(3)));
    for task in tasks {
        let _ = task.await;
    }
    assert_eq!(limiter.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn requests_a_minute_are_spread_over_the_minute() {
    let limiter = Limiter::new(LimiterConfig {
        concurrency: fixed(100),
        requests_per_minute: NonZeroU32::new(30),
        tokens_per_minute: None,
    });
    let start = Instant::now();
    for _ in 0..31 {
        drop(limiter.acquire(1_000_000).await);
    }
    assert_eq!(start.elapsed().as_secs_f64().round(), 60.0);
}

#[tokio::test(start_paused = true)]
async fn tokens_a_minute_hold_for_requests_of_any_size() {
    let limiter = Limiter::new(LimiterConfig {
        concurrency: fixed(100),
        requests_per_minute: None,
        tokens_per_minute: NonZeroU64::new(60_000),
    });
    let waits = [
        seconds(&limiter, 30_000).await,
        seconds(&limiter, 30_000).await,
        seconds(&limiter, 200_000).await,
        seconds(&limiter, 1).await,
    ];
    // Each waits for the one before it to be paid off, up to a second's worth.
    assert_eq!(waits, [0, 30, 30, 199]);
}

#[tokio::test(start_paused = true)]
async fn concurrency_grows_until_the_server_refuses() {
    let limiter = limiter(adaptive(64));
    for _ in 0..6 {
        let mut permits = Vec::new();
        while limiter.in_flight() < limiter.concurrency() {
            permits.push(limiter.acquire(1).await);
        }
        permits.into_iter().for_each(Permit::succeeded);
    }
    let grown = limiter.concurrency();
    assert_eq!(grown, 64);
    let mut permits = Vec::new();
    while limiter.in_flight() < grown {
        permits.push(limiter.acquire(1).await);
    }
    permits.iter().for_each(|permit| permit.throttled(None));
    assert_eq!(limiter.concurrency(), grown / 2);
    drop(permits);
    limiter.acquire(1).await.throttled(None);
    assert_eq!(limiter.concurrency(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_window_that_is_not_filled_does_not_grow() {
    let limiter = limiter(adaptive(64));
    for _ in 0..10 {
        let (first, second) = (limiter.acquire(1).await, limiter.acquire(1).await);
        first.succeeded();
        second.succeeded();
    }
    assert_eq!(limiter.concurrency(), 4);
}

#[tokio::test(start_paused = true)]
async fn little_left_in_the_headers_stops_the_growth() {
    let limiter = limiter(adaptive(64));
    let mut permits = Vec::new();
    while limiter.in_flight() < limiter.concurrency() {
        permits.push(limiter.acquire(1).await);
    }
    permits[0].observe(&requests_left(1000, 50, 60));
    permits.into_iter().for_each(Permit::succeeded);
    assert_eq!(limiter.concurrency(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_named_wait_holds_for_all_but_not_for_ever() {
    for (named, waited) in [(5, 5), (100_000, 60)] {
        let limiter = limiter(fixed(8));
        limiter.acquire(1).await.throttled(Some(Duration::from_secs(named)));
        assert_eq!(seconds(&limiter, 1).await, waited);
    }
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_quota_is_waited_for() {
    for (rate_limit, waited) in [
        (requests_left(60, 0, 60), 1),
        (requests_left(6, 0, 60), 10),
        (requests_left(6, 3, 60), 0),
        (requests_left(1, 0, 86_400), 60),
    ] {
        let limiter = limiter(fixed(8));
        limiter.acquire(1).await.observe(&rate_limit);
        assert_eq!(seconds(&limiter, 1).await, waited, "{rate_limit:?}");
    }
    let limiter = limiter(fixed(8));
    let tokens = Quota { limit: Some(60_000), remaining: Some(1000), reset: Some(Duration::from_secs(59)) };
    limiter.acquire(1).await.observe(&Pace { tokens, ..Pace::default() });
    assert_eq!(seconds(&limiter, 21_000).await, 20);
}

#[tokio::test(start_paused = true)]
async fn better_news_end_a_wait() {
    let limiter = limiter(fixed(8));
    let permit = limiter.acquire(1).await;
    permit.observe(&requests_left(1, 0, 50));
    let waiting = tokio::spawn({
        let limiter = limiter.clone();
        async move { seconds(&limiter, 1).await }
    });
    tokio::time::sleep(Duration::from_secs(7)).await;
    permit.observe(&requests_left(100, 90, 1));
    assert_eq!(waiting.await.unwrap(), 7);
}

#[tokio::test(start_paused = true)]
async fn many_requests_with_mixed_fates_all_end() {
    let limiter = limiter(adaptive(16));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..500_u64 {
        let limiter = limiter.clone();
        tasks.spawn(async move {
            let permit = limiter.acquire(number).await;
            assert!(limiter.in_flight() <= 16);
            tokio::time::sleep(Duration::from_millis(number % 7)).await;
            match number % 11 {
                0 => permit.throttled((number % 2 == 0).then_some(Duration::from_millis(number))),
                1 => permit.observe(&requests_left(100, number % 100, 1)),
                2 => drop(permit),
                _ => permit.succeeded(),
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    assert_eq!(limiter.in_flight(), 0);
}
