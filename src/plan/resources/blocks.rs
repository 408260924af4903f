//! Block devices, huge pages, RDMA, and the network, which has no files.

use std::fmt::Display;

use oci_spec::runtime::{LinuxBlockIo, LinuxHugepageLimit, LinuxResources, LinuxThrottleDevice, LinuxWeightDevice};

use super::{Absent, Draft, Write, sorted};

impl Draft {
    pub(super) fn devices(&mut self, resources: &LinuxResources) {
        if let Some(io) = resources.block_io() {
            self.block_io(io);
        }
        for (index, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
            self.huge_pages(index, limit);
        }
        for (device, limit) in sorted(resources.rdma().as_ref()) {
            let words = [("hca_handle", limit.hca_handles()), ("hca_object", limit.hca_objects())];
            let words: Vec<_> =
                words.into_iter().filter_map(|(name, value)| value.map(|value| format!("{name}={value}"))).collect();
            if device.is_empty() || device.contains(char::is_whitespace) {
                self.fault(&format!("rdma.{device:?}"), "it is no name of a device");
            } else if !words.is_empty() {
                self.write("rdma.max", format!("{device} {}", words.join(" ")), &format!("rdma.{device:?}"));
            }
        }
        if let Some(network) = resources.network() {
            self.no_file(network.class_id().is_some_and(|class| class > 0), "network.classID");
            self.no_file(network.priorities().as_ref().is_some_and(|all| !all.is_empty()), "network.priorities");
        }
    }

    fn block_io(&mut self, io: &LinuxBlockIo) {
        self.no_file(io.leaf_weight().is_some_and(|weight| weight > 0), "blockIO.leafWeight");
        if let Some(weight) = io.weight().filter(|weight| *weight > 0)
            && self.is_weight(weight, "blockIO.weight")
        {
            // From 10…1000 to 1…10000.
            let scaled = 1 + (u32::from(weight) - 10) * 9999 / 990;
            self.writes.push(Write {
                file: "io.bfq.weight".to_owned(),
                value: weight.to_string(),
                place: "blockIO.weight".to_owned(),
                absent: Absent::Refuse,
                instead: Some(("io.weight".to_owned(), scaled.to_string())),
            });
        }
        for (index, device) in io.weight_device().iter().flatten().enumerate() {
            self.weight_device(&format!("blockIO.weightDevice[{index}]"), device);
        }
        let throttles = [
            (io.throttle_read_bps_device(), "throttleReadBpsDevice", "rbps"),
            (io.throttle_write_bps_device(), "throttleWriteBpsDevice", "wbps"),
            (io.throttle_read_iops_device(), "throttleReadIOPSDevice", "riops"),
            (io.throttle_write_iops_device(), "throttleWriteIOPSDevice", "wiops"),
        ];
        for (devices, field, word) in throttles {
            for (index, device) in devices.iter().flatten().enumerate() {
                self.throttle(&format!("blockIO.{field}[{index}]"), device, word);
            }
        }
    }

    fn is_weight(&mut self, weight: u16, place: &str) -> bool {
        let is_one = (10..=1000).contains(&weight);
        if !is_one {
            self.fault(place, "it is not between 10 and 1000");
        }
        is_one
    }

    fn weight_device(&mut self, place: &str, device: &LinuxWeightDevice) {
        self.no_file(device.leaf_weight().is_some_and(|weight| weight > 0), &format!("{place}.leafWeight"));
        if let Some(weight) = device.weight().filter(|weight| *weight > 0)
            && self.is_weight(weight, place)
        {
            self.write("io.bfq.weight", line(device.major(), device.minor(), weight), place);
        }
    }

    fn throttle(&mut self, place: &str, device: &LinuxThrottleDevice, word: &str) {
        let (major, minor) = (device.major(), device.minor());
        match device.rate() {
            0 => self.write_if(Absent::Skip, "io.max", line(major, minor, format!("{word}=max")), place),
            rate => self.write("io.max", line(major, minor, format!("{word}={rate}")), place),
        }
    }

    fn huge_pages(&mut self, index: usize, limit: &LinuxHugepageLimit) {
        let place = format!("hugepageLimits[{index}]");
        let (size, limit) = (limit.page_size(), limit.limit());
        let is_size = ["KB", "MB", "GB"].iter().any(|unit| {
            size.strip_suffix(unit)
                .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
        });
        if !is_size {
            return self.fault(&place, &format!("pageSize {size:?} is not such as 2MB"));
        }
        let (absent, value) =
            if limit < 0 { (Absent::Skip, "max".to_owned()) } else { (Absent::Refuse, limit.to_string()) };
        self.write_if(absent, &format!("hugetlb.{size}.max"), &value, &place);
        // Pages that are reserved and not used yet: Linux 5.7.
        self.write_if(Absent::Skip, &format!("hugetlb.{size}.rsvd.max"), &value, &place);
    }
}

fn line(major: i64, minor: i64, value: impl Display) -> String {
    format!("{major}:{minor} {value}")
}
