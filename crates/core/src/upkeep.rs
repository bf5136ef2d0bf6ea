//! The task that keeps a record standing between two publications, of a registry that forgets what is not renewed. One at
//! most runs for a registration, and what it returns is why the record is lost.

use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::backend::Loss;

/// The task of one registration. It ends with this.
#[derive(Default)]
pub(crate) struct Upkeep(Option<(AbortHandle, watch::Receiver<Option<Loss>>)>);

impl Upkeep {
    /// Begins the task, unless one runs.
    pub(crate) fn ensure(&mut self, task: impl Future<Output = Loss> + Send + 'static) {
        if self.is_running() {
            return;
        }
        self.stop();
        let (told, loss) = watch::channel(None);
        let task = async move {
            let loss = task.await;
            told.send_replace(Some(loss));
        };
        self.0 = Some((tokio::spawn(task).abort_handle(), loss));
    }

    pub(crate) fn is_running(&self) -> bool {
        self.0.as_ref().is_some_and(|(_, loss)| loss.borrow().is_none())
    }

    /// Resolves when the record is lost.
    pub(crate) async fn lost(&mut self) -> Loss {
        let Some((_, loss)) = &mut self.0 else {
            return Loss::Gone("it is not renewed".to_owned());
        };
        match loss.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(loss)) => loss.clone(),
            _ => Loss::Gone("its renewal has ended".to_owned()),
        }
    }

    pub(crate) fn stop(&mut self) {
        if let Some((task, _)) = self.0.take() {
            task.abort();
        }
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.stop();
    }
}
