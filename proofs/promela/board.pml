/* The doorbell board of aio-notify: two sources that ring, and a loop that polls for a while and then arms the board and sleeps.
 *
 * A ring that is not served is an end in which the loop sleeps for ever: an invalid end state.
 *
 * bug: NO_LAST_CHECK  the loop does not check once more after it has armed the board
 * bug: END_ANY_EPOCH  a ring ends the epoch that it has read, also when another one has begun
 * bug: EPOCH_GOES_ON  a board that is armed twice keeps its epoch
 * bug: DISARMS_FIRST  a ring ends the epoch before it wakes, and is stopped in between for ever
 */
#define SOURCES 2

bool bits[SOURCES], woken;
byte epoch = 1; /* odd: armed */
byte served;

inline disarm(seen) {
#ifdef END_ANY_EPOCH
    epoch = seen + 1
#else
    atomic {
        if
        :: epoch == seen -> epoch = seen + 1
        :: else
        fi
    }
#endif
}

proctype source(byte number) {
    byte seen;
    bits[number] = true;
    seen = epoch;
    if
    :: seen % 2 == 1 ->
#ifdef DISARMS_FIRST
        disarm(seen);
        if
        :: woken = true
        :: number == 0 -> goto stopped
        fi
#else
        woken = true;
        disarm(seen)
#endif
    :: else
    fi;
stopped:
    skip
}

inline serve() {
    for (at : 0 .. SOURCES - 1) {
        atomic {
            if
            :: bits[at] -> bits[at] = false; served++
            :: else
            fi
        }
    }
}

inline arm() {
    seen = epoch;
    if
    :: seen % 2 == 0 -> epoch = seen + 1
    :: else ->
#ifndef EPOCH_GOES_ON
        disarm(seen);
        epoch = seen + 2
#else
        skip
#endif
    fi
}

active proctype home() {
    byte at, seen;
    run source(0);
    run source(1);
    do
    :: served == SOURCES -> break
    :: else ->
        if
        :: true -> /* polls before it arms the board */
            seen = epoch;
            if
            :: seen % 2 == 1 -> disarm(seen)
            :: else
            fi;
            serve()
        :: true
        fi;
        arm();
#ifndef NO_LAST_CHECK
        serve();
#endif
        if
        :: served < SOURCES -> woken; woken = false
        :: else
        fi
    od
}
