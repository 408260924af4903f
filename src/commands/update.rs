//! `pura update`: other limits for a container that runs.

use std::{fs, path::Path};

use oci_spec::runtime::{LinuxMemory, LinuxResources};

use super::{Call, living};
use crate::{
    bundle,
    cgroup::{self, devices, limits, scope},
    cli::Update,
    error::{Code, Error, Result},
    host::probe,
    plan::resources::{self, Absent, Now, Rules},
};

/// Changes all that is asked for, or nothing.
pub(super) fn update(call: Call<'_>, update: &Update) -> Result<u8> {
    change(call, update).map_err(|error| error.rename_place(|place| update.flags.option(place)))
}

fn change(call: Call<'_>, update: &Update) -> Result<u8> {
    let resources = match &update.resources {
        Some(file) => bundle::resources(file)?,
        None => update.flags.resources()?,
    };
    let living = living::lock(call, &update.id, "update")?;
    let directory = living.cgroup("update", Code::NoCgroup)?;
    // The limits of a scope are above what the container may divide.
    let unit = living.record.unit.as_deref();
    let directory = unit.map(|unit| scope::of_leaf(&directory, unit)).unwrap_or(directory);
    let writes = resources::writes(&resources, &now(&directory))?;
    if let Some(limit) = writes.iter().find(|write| write.absent == Absent::Refuse) {
        let host = probe::cgroup();
        cgroup::require_version_2(limit, host.unified)?;
        check_usage(&resources, &directory)?;
        if let Some(mount) = &host.mount {
            cgroup::extend(&directory, mount, &writes)?;
        }
    }
    // Loaded first, because that is what may fail: then nothing has changed.
    let filters = resources.devices().as_ref().is_some_and(|rules| !rules.is_empty())
        && devices::are_enforced(&probe::caller()?, probe::is_initial(probe::own_userns()));
    let loaded = Rules::of(&resources).filter(|_| filters).map(|rules| devices::load(&rules)).transpose();
    if let Err(warning) = &loaded {
        call.log.warn(std::slice::from_ref(warning), false)?;
    }
    let unset = match unit {
        Some(unit) => scope::change(unit, &directory, &writes)?,
        None => limits::change(&directory, &writes)?,
    };
    call.log.warn(&unset, false)?;
    let put = loaded.ok().filter(|_| filters).map(|program| devices::put(&directory, program.as_ref(), false));
    call.log.warn(put.and_then(std::result::Result::err).as_slice(), false)?;
    Ok(0)
}

/// What holds now, for values that go in pairs.
fn now(directory: &Path) -> Now {
    let text = |name: &str| fs::read_to_string(directory.join(name)).unwrap_or_default();
    Now {
        memory: text("memory.max").trim().parse().ok(),
        quota: text("cpu.max").split_whitespace().next().map(str::to_owned),
    }
}

/// `memory.checkBeforeUpdate`: a limit that is reached already would end processes.
fn check_usage(resources: &LinuxResources, directory: &Path) -> Result<()> {
    let memory = resources.memory().as_ref().filter(|memory| memory.check_before_update() == Some(true));
    let limit = memory.and_then(LinuxMemory::limit).and_then(|limit| u64::try_from(limit).ok()).unwrap_or(0);
    let usage = fs::read_to_string(directory.join("memory.current")).unwrap_or_default();
    match usage.trim().parse::<u64>() {
        Ok(usage) if limit > 0 && limit <= usage => {
            let why = format!("the container uses {usage} bytes");
            Err(Error::new(Code::LimitRefused, format!("set memory.max to {limit}"), why)
                .at("linux.resources.memory.checkBeforeUpdate"))
        }
        _ => Ok(()),
    }
}
