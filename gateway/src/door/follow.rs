//! Takes renewed certificates up while the doors are open.

use std::time::Duration;

use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use super::tls::{Renewal, Tls};
use crate::{Gateway, telemetry};

/// How often the files are looked at: three small reads.
const EVERY: Duration = Duration::from_secs(10);

impl Gateway {
    /// Looks at the files of the certificates every ten seconds, and whenever [`Tls::look_again`] asks for it, until the
    /// shutdown. Both doors make their next connections with what is new. Without TLS it ends at once.
    pub async fn follow_certificates(&self) {
        let Some(tls) = &self.tls else { return };
        telemetry::certificates_are_good(true);
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = tls.told() => {}
                _ = ticks.tick() => {}
            }
            look(tls).await;
        }
    }
}

async fn look(tls: &Tls) {
    let looking = tls.clone();
    // A panic of the reader's is in the log already; the next look is another try.
    match spawn_blocking(move || looking.renew()).await {
        Ok(Renewal::Same) | Err(_) => {}
        Ok(Renewal::Renewed) => {
            telemetry::certificates_renewed("renewed");
            telemetry::certificates_are_good(true);
            tracing::info!("certificates renewed, new connections have them");
        }
        Ok(Renewal::Unusable(error)) => {
            telemetry::certificates_renewed("unusable");
            telemetry::certificates_are_good(false);
            tracing::warn!(%error, "certificates not renewed, the old ones are served on");
        }
    }
}
