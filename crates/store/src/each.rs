//! Asking for many things at once, a few at a time.

use std::future::Future;

use tokio::task::JoinSet;

/// Runs `ask` for each item, at most `at_once` at the same time, and gives the answers in the items' order. The first failure is
/// the answer for all: it ends those under way, and the others never begin. Dropping the future ends them as well.
///
/// # Errors
/// The first failure.
///
/// # Panics
/// When `ask` does.
pub async fn each<I, T, E, F>(items: Vec<I>, at_once: usize, ask: impl Fn(I) -> F + Send) -> Result<Vec<T>, E>
where
    I: Send,
    T: Send + 'static,
    E: Send + 'static,
    F: Future<Output = Result<T, E>> + Send + 'static,
{
    let mut answers = Vec::with_capacity(items.len());
    let mut under_way = JoinSet::new();
    let mut questions = items.into_iter().enumerate().map(move |(at, item)| {
        let answer = ask(item);
        async move { (at, answer.await) }
    });
    for question in questions.by_ref().take(at_once.max(1)) {
        under_way.spawn(question);
    }
    while let Some(ended) = under_way.join_next().await {
        match ended {
            Ok((at, answer)) => answers.push((at, answer?)),
            // Nobody else ends them, so it panicked.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
        if let Some(question) = questions.next() {
            under_way.spawn(question);
        }
    }
    answers.sort_unstable_by_key(|(at, _)| *at);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    /// How many are alive, and how many ever were at once.
    #[derive(Default)]
    struct Crowd {
        now: AtomicUsize,
        most: AtomicUsize,
    }

    struct Present(Arc<Crowd>);

    impl Present {
        fn enter(crowd: &Arc<Crowd>) -> Self {
            let now = crowd.now.fetch_add(1, Ordering::SeqCst) + 1;
            crowd.most.fetch_max(now, Ordering::SeqCst);
            Self(crowd.clone())
        }
    }

    impl Drop for Present {
        fn drop(&mut self) {
            self.0.now.fetch_sub(1, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn all_answer_in_order_and_never_more_at_once_than_allowed() {
        for at_once in [0, 1, 3, 100] {
            let crowd = Arc::new(Crowd::default());
            let shared = crowd.clone();
            let answers = each((0..20).collect(), at_once, move |item: u32| {
                let crowd = shared.clone();
                async move {
                    let _present = Present::enter(&crowd);
                    tokio::time::sleep(Duration::from_millis(u64::from(20 - item) % 3)).await;
                    Ok::<_, ()>(item)
                }
            })
            .await
            .unwrap_or_default();
            assert_eq!(answers, (0..20).collect::<Vec<_>>());
            assert_eq!(crowd.most.load(Ordering::SeqCst), at_once.clamp(1, 20));
        }
        assert_eq!(each(Vec::<u32>::new(), 5, async |item| Ok::<_, ()>(item)).await, Ok(Vec::new()));
    }

    #[tokio::test]
    async fn the_first_failure_ends_those_that_never_would() {
        let crowd = Arc::new(Crowd::default());
        let shared = crowd.clone();
        let answer = each((0..20).collect(), 4, move |item: u32| {
            let crowd = shared.clone();
            async move {
                let _present = Present::enter(&crowd);
                if item == 2 {
                    return Err(item);
                }
                std::future::pending().await
            }
        })
        .await;
        assert_eq!(answer, Err::<Vec<()>, _>(2));
        tokio::task::yield_now().await;
        assert_eq!(crowd.now.load(Ordering::SeqCst), 0, "nobody is left");
        assert!(crowd.most.load(Ordering::SeqCst) <= 4);
    }

    #[tokio::test]
    async fn dropping_the_question_ends_all() {
        let crowd = Arc::new(Crowd::default());
        let shared = crowd.clone();
        let asking = each((0..20).collect(), 4, move |_: u32| {
            let crowd = shared.clone();
            async move {
                let _present = Present::enter(&crowd);
                std::future::pending::<Result<(), ()>>().await
            }
        });
        assert!(tokio::time::timeout(Duration::from_millis(20), asking).await.is_err());
        tokio::task::yield_now().await;
        assert_eq!(crowd.now.load(Ordering::SeqCst), 0);
        assert_eq!(crowd.most.load(Ordering::SeqCst), 4);
    }
}
