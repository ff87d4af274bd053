//! Writing as fast as it goes, to either product, through the same gRPC client.

use std::time::{Duration, Instant};

use tonic::Status;

use crate::figures::Samples;

/// What writes.
pub(crate) trait Writer: Send + 'static {
    /// One durable write; `number` makes its content differ from the last one's.
    fn write(&mut self, number: u64) -> impl Future<Output = Result<(), Status>> + Send;
}

/// What several writers got done together.
#[derive(Debug, Default, Clone)]
pub(crate) struct Work {
    /// How long each write took.
    pub(crate) samples: Samples,
    /// Writes each second, all writers together.
    pub(crate) rate: f64,
}

/// Lets the writers write for a time, each one write after the other.
///
/// # Panics
/// When a write fails: nothing is killed while this measures.
pub(crate) async fn measure<W: Writer>(writers: Vec<W>, time: Duration) -> Work {
    let start = Instant::now();
    let tasks = writers.into_iter().map(|mut writer| {
        tokio::spawn(async move {
            let (mut samples, mut count) = (Samples::default(), 0_u64);
            while start.elapsed() < time {
                let begun = Instant::now();
                writer.write(count).await.unwrap();
                samples.add(begun.elapsed());
                count += 1;
            }
            (samples, count)
        })
    });
    let (mut work, mut count) = (Work::default(), 0);
    for task in tasks.collect::<Vec<_>>() {
        let (samples, written) = task.await.unwrap();
        work.samples.join(samples);
        count += written;
    }
    work.rate = count as f64 / start.elapsed().as_secs_f64();
    work
}
