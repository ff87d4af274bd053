//! The words of the API's enums that several views show.

use trestle_api::v1;

/// The part that a process has in Raft; empty for a member that did not answer.
pub(crate) fn raft_state_word(state: v1::RaftState) -> &'static str {
    match state {
        v1::RaftState::Unspecified => "",
        v1::RaftState::Empty => "empty",
        v1::RaftState::Starting => "starting",
        v1::RaftState::Learner => "learner",
        v1::RaftState::Follower => "follower",
        v1::RaftState::Candidate => "candidate",
        v1::RaftState::Leader => "leader",
        v1::RaftState::Removed => "removed",
        v1::RaftState::Stopped => "stopped",
    }
}

/// How far a member is with serving the virtual IPs; `None` while there are none.
pub(crate) fn vip_standing_word(standing: v1::VipStanding) -> Option<&'static str> {
    Some(match standing {
        v1::VipStanding::Unspecified => return None,
        v1::VipStanding::Unable => "unable",
        v1::VipStanding::Following => "standby",
        v1::VipStanding::CatchingUp => "catching-up",
        v1::VipStanding::WaitingForOldLease => "waiting-for-old-lease",
        v1::VipStanding::Taking => "taking-over",
        v1::VipStanding::Serving => "serving",
        v1::VipStanding::WithoutQuorum => "without-quorum",
        v1::VipStanding::Leaving => "handing-over",
        v1::VipStanding::Yielded => "handed-over",
    })
}

/// What a change of membership is doing.
pub(crate) fn membership_step_word(step: v1::member_progress::Step) -> &'static str {
    use v1::member_progress::Step;
    match step {
        // Of a later version.
        Step::Unspecified => "under way",
        Step::IdAllocated => "id allocated",
        Step::IdentityTaken => "member took its identity",
        Step::CatchingUp => "catching up",
        Step::Agreeing => "agreeing on the new voters",
        Step::Done => "done",
    }
}
