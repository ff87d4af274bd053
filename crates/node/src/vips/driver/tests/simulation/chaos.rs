//! What goes wrong.

use trestle_engine::ownership::{Fault, OwnershipEvent};
use trestle_vip::KernelEvent;

use super::member::member_id;
use super::world::{Happening, Id, MEMBERS, TROUBLE, World, ms};
use crate::vips::command::VipCommand;
use crate::vips::driver::tests::fakes::{Asked, vip};

/// Something that ends again.
#[derive(Debug, Clone, Copy)]
pub(super) enum Trouble {
    Cut(Id, Id),
    Loss,
    Fault(Id, Fault),
    /// A process that was told to stop is to end.
    Stop(Id),
}

impl World {
    /// One thing goes wrong, and the next one later.
    pub(super) fn trouble(&mut self) {
        self.tell_targets();
        let next = self.draws.time(30, 400);
        if self.now + next < TROUBLE.end {
            self.after(next, Happening::Trouble);
        }
        let id = self.draws.member();
        match self.draws.below(13) {
            0 | 1 => self.cut_off(id),
            2 => {
                self.loss = self.draws.below(60);
                self.delay = 3 + self.draws.below(150);
                let time = self.draws.time(50, 1_000);
                self.after(time, Happening::End(Trouble::Loss));
            }
            3 | 4 => {
                let time = self.draws.time(20, 900);
                self.members[id].paused_until = self.now + time;
            }
            5 => {
                let time = self.draws.time(20, 700);
                self.members[id].driver_hangs_until = self.now + time;
            }
            6 => {
                let time = self.draws.time(20, 600);
                self.members[id].lease_hangs_until = self.now + time;
            }
            7 => self.restart(id),
            8 => {
                self.members[id].machine.lose_address(vip());
                self.tell(id, VipCommand::Kernel(KernelEvent::AddressLost(vip())));
            }
            9 => self.fail(id),
            10 => {
                self.tell(id, VipCommand::Event(OwnershipEvent::Stop));
                let time = self.draws.time(100, 700);
                self.after(time, Happening::End(Trouble::Stop(id)));
            }
            // Raft hands leadership over without being asked, as when its configuration changes.
            11 => {
                let to = self.draws.member();
                if to != id && self.runs(id) {
                    self.asked(id, Asked::Transfer(member_id(to)));
                }
            }
            _ => {
                let to = self.draws.member();
                let to = self.draws.chance(70).then(|| member_id(to));
                self.tell(id, VipCommand::Event(OwnershipEvent::Move { to }));
            }
        }
    }

    /// A member, or one way to it, is cut off.
    fn cut_off(&mut self, id: Id) {
        let one_way = self.draws.chance(30);
        let time = self.draws.time(50, 1_500);
        let other = self.draws.member();
        for peer in (0..MEMBERS).filter(|peer| *peer != id) {
            if one_way && peer != other {
                continue;
            }
            let ways = if one_way { vec![(id, peer)] } else { vec![(id, peer), (peer, id)] };
            for (from, to) in ways {
                self.cut[from][to] = true;
                self.after(time, Happening::End(Trouble::Cut(from, to)));
            }
        }
    }

    fn restart(&mut self, id: Id) {
        if self.members[id].process.is_some() {
            self.members[id].process_ends();
            let time = self.draws.time(1, 500);
            self.after(time, Happening::Start(id));
        }
    }

    fn fail(&mut self, id: Id) {
        let fault = if self.draws.chance(50) { Fault::Check } else { Fault::DataPlane };
        self.tell(id, VipCommand::Event(OwnershipEvent::Fault { fault, present: true }));
        let time = self.draws.time(50, 1_000);
        self.after(time, Happening::End(Trouble::Fault(id, fault)));
    }

    pub(super) fn end(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Cut(from, to) => self.cut[from][to] = false,
            Trouble::Loss => (self.loss, self.delay) = (0, 3),
            Trouble::Fault(id, fault) => {
                self.tell(id, VipCommand::Event(OwnershipEvent::Fault { fault, present: false }));
            }
            Trouble::Stop(id) => {
                if self.members[id].driver_runs(self.now) {
                    self.drive(id, super::super::super::Driver::release_all);
                    self.members[id].process_ends();
                    self.after(ms(50), Happening::Start(id));
                } else {
                    self.after(ms(100), Happening::End(Trouble::Stop(id)));
                }
            }
        }
    }
}
