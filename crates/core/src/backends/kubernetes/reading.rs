//! Lists of one kind, read page by page.

use std::collections::HashSet;

use super::client::{Cluster, Refused};
use super::store::{Kind, Store};
use crate::error::{Error, ErrorKind, Result};
use crate::http::segment;

/// How often a list is begun anew whose later pages the server has forgotten.
const BEGUN: usize = 3;

/// The path and the selector of what is read of a kind: of one name, or of all.
pub(super) async fn question(cluster: &Cluster, kind: Kind, name: Option<&str>) -> Result<String> {
    let (group, word) = kind.path();
    let path = cluster.path(group, word).await?;
    let mut selector = kind.label().to_owned();
    if let Some(name) = name {
        selector = format!("{selector}={name}");
    }
    if let Some(more) = &cluster.options.selector {
        selector = format!("{selector},{more}");
    }
    Ok(format!("{path}?labelSelector={}", segment(&selector)))
}

/// All that there is of a kind, of one name or of all, and the version that it was read at.
pub(super) async fn list(cluster: &Cluster, kind: Kind, name: Option<&str>) -> Result<(Store, String)> {
    let question = question(cluster, kind, name).await?;
    let mut begun = 0;
    'anew: loop {
        begun += 1;
        let (mut store, mut changed, mut next) = (Store::default(), HashSet::new(), String::new());
        loop {
            let page = format!("{question}&limit={}&continue={}", kind.page(), segment(&next));
            let page = match cluster.page(&page).await {
                Ok(page) => page,
                Err(refused) if refused.status == 410 && begun < BEGUN => continue 'anew,
                Err(refused) => return Err(named(cluster, refused)),
            };
            for item in &page.items {
                store.put(kind, &cluster.options, item, &mut changed);
            }
            if page.metadata.next.is_empty() {
                return Ok((store, page.metadata.resource_version));
            }
            next = page.metadata.next;
        }
    }
}

/// Whether we may read a kind.
pub(super) async fn may(cluster: &Cluster, kind: Kind) -> Result<(), Error> {
    let question = question(cluster, kind, None).await?;
    let page = cluster.page(&format!("{question}&limit=1")).await;
    page.map(drop).map_err(|refused| named(cluster, refused))
}

/// What the server takes for wrong in a question of ours is the selector that was given.
fn named(cluster: &Cluster, refused: Refused) -> Error {
    if refused.error.kind() == ErrorKind::InvalidArgument && cluster.options.selector.is_some() {
        return Error::invalid(format!("options.selector: {}", refused.error.message())).caused_by(refused.error);
    }
    refused.error
}
