/** rollcall/ratelimit: how much of something a subject may have in a time. */

export {};
