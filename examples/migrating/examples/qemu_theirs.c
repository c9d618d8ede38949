/* A virtqueue's handler on QEMU's AioContext: kicked by an eventfd, polled while requests come quickly. */

typedef struct Queue {
    EventNotifier kick;
    Ring *ring;
    QEMUBH *interrupt;
    QEMUTimer *timeout;
} Queue;

/* ANCHOR: handler */
static void queue_poll_ready(EventNotifier *kick)
{
    Queue *q = container_of(kick, Queue, kick);

    while (ring_pop(q->ring)) {
        /* serve it */
    }
    qemu_bh_schedule(q->interrupt);
}

static void queue_kicked(EventNotifier *kick)
{
    if (event_notifier_test_and_clear(kick)) {
        queue_poll_ready(kick);
    }
}
/* ANCHOR_END: handler */

/* ANCHOR: polling */
static bool queue_poll(void *opaque)
{
    Queue *q = container_of(opaque, Queue, kick);

    return !ring_is_empty(q->ring);
}

static void queue_poll_begin(EventNotifier *kick)
{
    ring_set_notification(container_of(kick, Queue, kick)->ring, false);
}

static void queue_poll_end(EventNotifier *kick)
{
    ring_set_notification(container_of(kick, Queue, kick)->ring, true);
}
/* ANCHOR_END: polling */

/* ANCHOR: attach */
static void queue_attach(Queue *q, AioContext *ctx)
{
    aio_set_event_notifier(ctx, &q->kick, queue_kicked,
                           queue_poll, queue_poll_ready);
    aio_set_event_notifier_poll(ctx, &q->kick,
                                queue_poll_begin, queue_poll_end);
    aio_context_set_poll_params(ctx, 32768, 0, 0, &error_abort);
}
/* ANCHOR_END: attach */

/* ANCHOR: deferred */
static void queue_defer(Queue *q, AioContext *ctx)
{
    q->interrupt = aio_bh_new(ctx, queue_interrupt, q);
    q->timeout = aio_timer_new(ctx, QEMU_CLOCK_REALTIME, SCALE_MS,
                               queue_timeout, q);
    timer_mod(q->timeout, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + 5000);
}
/* ANCHOR_END: deferred */

/* ANCHOR: detach */
static void queue_detach(Queue *q, AioContext *ctx)
{
    aio_set_event_notifier(ctx, &q->kick, NULL, NULL, NULL);
    qemu_bh_delete(q->interrupt);
    timer_free(q->timeout);
}
/* ANCHOR_END: detach */

/* ANCHOR: loop */
static void *iothread_run(void *opaque)
{
    IOThread *iothread = opaque;

    while (iothread->running) {
        aio_poll(iothread->ctx, true);
    }
    return NULL;
}
/* ANCHOR_END: loop */
